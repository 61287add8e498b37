"""Requests to Kubeflow Pipelines: how long one may take, what is tried again, and what a failure means.

They go through kfp_server_api, the client of the REST API that kfp.Client wraps. kfp.Client itself sets no timeout,
prints to stdout, takes namespace and cookies from what was last left in ~/.config/kfp, and takes a second to import.
"""

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import kfp_server_api
import tenacity
import urllib3
from kfp_server_api.rest import RESTResponse

from components.errors import ClusterError, SettingsError
from pipeline.settings import TOKEN
from pipeline.settings.cluster import KubeflowSettings

TRIES = 4
_LONGEST_MESSAGE = 400  # of the server's: some carry their stack trace
_PASSING = (429, 502, 503, 504)
_FORWARD = "kubectl port-forward -n kubeflow service/ml-pipeline-ui 8080:80"

Parameters = list[tuple[str, Any]]


class Timeouts(NamedTuple):
    """Seconds that a request may take, and that pass before it is tried again."""

    connect_s: float = 5
    answer_s: float = 30
    back_off_s: float = 0.5  # before the second try, then doubled; chance adds up to as much as this to each


TIMEOUTS = Timeouts()


class ResourceNotFound(ClusterError):
    """Status 404: the server has no such resource."""


class ResourceExists(ClusterError):
    """Status 409: a resource of this name exists."""


class ServerUnavailable(ClusterError):
    """The server did not answer, despite several tries. It may answer later."""


class _Passing(ClusterError):
    """What may be over at the next try, and was not done at this one."""


class OutcomeUnknown(ServerUnavailable):
    """The server did not answer a request that changes something, and may or may not have carried it out."""


class ClusterConnection(kfp_server_api.ApiClient):
    """To one server. `say` is told of what a person waits for.

    Raises SettingsError for an endpoint or a token that cannot be used, else ClusterError.
    """

    def __init__(self, settings: KubeflowSettings, say: Callable[[str], None], timeouts: Timeouts = TIMEOUTS):
        self.endpoint = _checked(settings.endpoint)
        self._token = settings.token.get_secret_value().strip()
        if not (self._token.isascii() and self._token.isprintable()):
            raise SettingsError(f"{TOKEN} holds what no token has: characters beyond ASCII, or several lines")
        self._say, self._timeout = say, (timeouts.connect_s, timeouts.answer_s)
        configuration = kfp_server_api.Configuration(host=self.endpoint)
        configuration.retries = False  # urllib3's own know nothing of what may be done twice
        configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE")
        if self._token:
            configuration.api_key = {"authorization": self._token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        super().__init__(configuration)
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            stop=tenacity.stop_after_attempt(TRIES),
            wait=tenacity.wait_exponential_jitter(initial=timeouts.back_off_s, jitter=timeouts.back_off_s),
            before_sleep=self._say_again,
            reraise=True,
        )

    def is_multi_user(self) -> bool:
        """Whether the server keeps users apart, each in a namespace. The first question to any server."""
        try:
            answer = kfp_server_api.HealthzServiceApi(self).healthz_service_get_healthz()
        except ResourceNotFound:
            raise ClusterError(
                f"{self.endpoint} has no API of Kubeflow Pipelines 2 (no /apis/v2beta1/healthz): it is older, or "
                "kubeflow.endpoint lacks a path"
            ) from None
        if answer.multi_user is None:
            raise self._not_kfp("a health report that is none of its")
        return bool(answer.multi_user)

    def text(self, path: str, **query: str) -> tuple[str, str]:
        """What the server holds at `path`, and of which content type."""
        text = self.call_api(
            path,
            "GET",
            query_params=list(query.items()),
            response_type="bytes",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
        )
        return text, self.last_response.getheader("Content-Type") or ""

    def request(
        self,
        method: str,
        url: str,
        query_params: Parameters | None = None,
        headers: dict[str, str] | None = None,
        post_params: Parameters | None = None,
        body: Any = None,
        _preload_content: bool = True,
        _request_timeout: tuple[float, float] | None = None,
    ) -> RESTResponse:
        try:
            return self._retry(self._once, method, url, query_params, headers, post_params, body)
        except _Passing as error:
            raise ServerUnavailable(f"tried {TRIES} times: {error}") from error

    def deserialize(self, response: RESTResponse, response_type: str) -> Any:
        if response_type == "bytes":
            return response.data.decode("utf-8", "replace")
        try:
            json.loads(response.data)
        except ValueError:
            raise self._not_kfp(response.getheader("Content-Type") or "something without a content type") from None
        return super().deserialize(response, response_type)

    def _once(
        self,
        method: str,
        url: str,
        query_params: Parameters | None,
        headers: dict[str, str] | None,
        post_params: Parameters | None,
        body: Any,
    ) -> RESTResponse:
        try:
            return super().request(
                method, url, query_params, headers, post_params, body, _request_timeout=self._timeout
            )
        except kfp_server_api.ApiException as error:
            raise self._refused(method, error) from error
        except (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.NewConnectionError) as error:
            raise _Passing(self._unreachable(_cause(error))) from error
        except urllib3.exceptions.ReadTimeoutError as error:
            raise self._unanswered(method, f"{self.endpoint} gave no answer within {self._timeout[1]:g} s") from error
        except urllib3.exceptions.HTTPError as error:
            raise self._unanswered(method, f"{self.endpoint} broke off: {_cause(error)}") from error

    def _refused(self, method: str, error: kfp_server_api.ApiException) -> Exception:
        if not error.status:  # urllib3's SSLError, as kfp_server_api wraps it
            return ClusterError(
                f"{self.endpoint} shows a certificate that is not trusted: {str(error.reason).splitlines()[-1]}; the "
                "variable SSL_CERT_FILE names a file with the certificates to trust"
            )
        said = f"{error.status} {error.reason}: {_message(error.body)}"
        if error.status == 401 or 300 <= error.status < 400:
            what = "refuses the token" if self._token else "wants a token"
            return SettingsError(
                f"{self.endpoint} {what} ({error.status} {error.reason}): put a valid one in {TOKEN}, for example from "
                "kubectl create token SERVICE_ACCOUNT -n NAMESPACE --audience pipelines.kubeflow.org"
            )
        if error.status == 403:
            return SettingsError(
                f"{self.endpoint} does not allow it ({said}): the token in {TOKEN} needs more rights, or "
                "kubeflow.namespace is not yours"
            )
        if error.status == 404:
            return ResourceNotFound(f"{self.endpoint}: {said}")
        if error.status == 409:
            return ResourceExists(f"{self.endpoint}: {said}")
        if error.status in _PASSING:
            text = f"{self.endpoint} is not ready: {said}"
            # A proxy may say so of a request that the server behind it has carried out.
            return _Passing(text) if error.status == 429 else self._unanswered(method, text)
        return ClusterError(f"{self.endpoint} refuses the request: {said}")

    def _unanswered(self, method: str, text: str) -> ClusterError:
        return _Passing(text) if method == "GET" else OutcomeUnknown(text)

    def _unreachable(self, cause: str) -> str:
        return (
            f"no Kubeflow Pipelines at {self.endpoint}: {cause}; --set kubeflow.endpoint=http://HOST:PORT, or forward "
            f"it there: {_FORWARD}"
        )

    def _not_kfp(self, sent: str) -> ClusterError:
        return ClusterError(
            f"{self.endpoint} does not answer as Kubeflow Pipelines does, it sent {sent}: kubeflow.endpoint is where "
            f"its page or its API answers, and a page to log in wants a token in {TOKEN}"
        )

    def _say_again(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        error, wait = state.outcome.exception(), state.next_action.sleep
        self._say(f"{error}; trying again in {wait:.1f} s ({state.attempt_number + 1} of {TRIES})")


def _checked(endpoint: str) -> str:
    if "@" in endpoint:  # and is not repeated
        raise SettingsError(f"kubeflow.endpoint: a password does not belong there; a token goes into {TOKEN}")
    try:
        url = urlsplit(endpoint)
        known = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        known = False
    if not known:
        raise SettingsError(f"kubeflow.endpoint {endpoint}: write http://HOST:PORT or https://HOST/PATH")
    return endpoint.rstrip("/")


def _message(body: Any) -> str:
    """What the server says, in one line. Its pipelines API has `message`, its upload and log servers have others."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        answer = json.loads(text)
        text = str(answer.get("message") or answer.get("error_message") or answer.get("error") or text)
    except (ValueError, AttributeError):
        text = "" if "<html" in text.lower() else text
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]} ..."


def _cause(error: BaseException) -> str:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error) or type(error).__name__
