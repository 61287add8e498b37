"""Settings of the checks of a model that serves."""

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from components.data.gate.bounds import Bound, BoundsGroup

WEBHOOK = "VITPIPE_MONITOR__WEBHOOK"


class MonitorSettings(BoundsGroup):
    """Thresholds of the checks of `vitpipe monitor`. Past `warn` a check is reported, past `stop` it is an alert.

    Images and predicted classes are checked with the thresholds `data_gate.drift_*`. No run depends on these settings.
    """

    false_alerts: float = Field(
        0.001,
        gt=0,
        le=0.5,
        description="Largest probability that a report on unchanged traffic contains a warning or an alert, whatever "
        "its number of windows, if its images are independent of each other. A threshold that chance could exceed more "
        "often is raised for small windows.",
    )
    errors: Bound = Field(Bound(warn=0.01, stop=0.05), description="Largest share of requests that failed.")
    invalid_images: Bound = Field(
        Bound(warn=0.01, stop=0.05), description="Largest share of images that cannot be used."
    )
    unreadable_answers: Bound = Field(
        Bound(warn=0.01, stop=0.05),
        description="Largest share of answers that the model cannot have given, such as values that are not finite.",
    )
    drift_formats: Bound = Field(
        Bound(warn=0.1, stop=0.5),
        description="Largest divergence of the distributions of image formats, measured as for "
        "data_gate.drift_labels_js.",
    )
    drift_confidence: Bound = Field(
        Bound(warn=0.05, stop=0.2),
        description="Largest divergence of the distributions of the model's confidence in traffic and on the test set, "
        "measured as for data_gate.drift_labels_js.",
    )
    expected_accuracy_loss: Bound = Field(
        Bound(warn=0.05, stop=0.1),
        description="Largest loss of accuracy since the test set that the model's calibrated confidence predicts.",
    )
    accuracy_loss: Bound = Field(
        Bound(warn=0.02, stop=0.05),
        description="Largest loss of accuracy since the test set, measured on images with a true label.",
    )
    webhook: SecretStr = Field(
        SecretStr(""),
        description="Web address that alerts are sent to. Only an environment variable can set it. It is never "
        "recorded.",
    )

    @field_validator("webhook")
    @classmethod
    def check_webhook(cls, webhook: SecretStr) -> SecretStr:
        """Check that the webhook is a web address, or empty. The message does not repeat it: it contains a secret."""
        address = webhook.get_secret_value().strip()
        if address and not _is_web_address(address):
            raise ValueError(f"it is not a web address: write https://HOST/PATH or http://HOST/PATH in {WEBHOOK}")
        return SecretStr(address)


def _is_web_address(text: str) -> bool:
    import requests  # takes long to import

    try:
        parts = urlsplit(text)
        # Sending a message and resolving its host would fail on the same checks later.
        requests.Request("POST", text).prepare()
        (parts.hostname or "").encode("idna")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except (requests.RequestException, ValueError):
        return False
