"""Connection to Kubeflow Pipelines: time limits, repetition of failed requests, and error messages.

Requests are sent with kfp_server_api, the client of the REST API that kfp.Client wraps. kfp.Client is not used because
it sets no time limit, prints to stdout, reads a namespace and cookies of earlier sessions from ~/.config/kfp, and takes
a second to import.
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
_LONGEST_MESSAGE = 400  # characters; some messages of the server contain a stack trace
_TRANSIENT = (429, 502, 503, 504)  # status codes of failures after which a request may be repeated
_FORWARD = "kubectl port-forward -n kubeflow service/ml-pipeline-ui 8080:80"

Parameters = list[tuple[str, Any]]


class Timeouts(NamedTuple):
    """Time limits of a request, in seconds.

    Attributes:
        connect_s: seconds within which a connection must be made.
        answer_s: seconds within which the server must answer.
        back_off_s: seconds to wait before the second try. The wait doubles with each further try, and a random time of
            up to `back_off_s` is added to it.
    """

    connect_s: float = 5
    answer_s: float = 30
    back_off_s: float = 0.5


TIMEOUTS = Timeouts()


class ResourceNotFoundError(ClusterError):
    """Status 404: the server has no such resource."""


class ResourceExistsError(ClusterError):
    """Status 409: a resource of this name exists."""


class ServerUnavailableError(ClusterError):
    """The server did not answer, despite several tries. It may answer later."""


class _TransientError(ClusterError):
    """The request failed without an effect, and may succeed if it is repeated."""


class OutcomeUnknownError(ServerUnavailableError):
    """The server did not answer a request that changes something, and may or may not have carried it out."""


class ClusterConnection(kfp_server_api.ApiClient):
    """Connection to one server.

    Args:
        settings: the address of the server and its token.
        report: called with a message before each repetition of a request.
        timeouts: the time limits of a request.

    Raises:
        SettingsError: if the address or the token is invalid. Requests raise it if the server rejects the token.
        ClusterError: raised by requests, if the server does not answer or gives an unexpected answer.
    """

    def __init__(
        self, settings: KubeflowSettings, report: Callable[[str], None], timeouts: Timeouts = TIMEOUTS
    ) -> None:
        self.endpoint = _check_endpoint(settings.endpoint)
        self._token = settings.token.get_secret_value().strip()
        if not (self._token.isascii() and self._token.isprintable()):
            raise SettingsError(f"{TOKEN} is not a token: it has characters beyond ASCII, or several lines")
        self._report, self._timeout = report, (timeouts.connect_s, timeouts.answer_s)
        configuration = kfp_server_api.Configuration(host=self.endpoint)
        configuration.retries = False  # urllib3 would also repeat requests that must not be sent twice
        configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE")
        if self._token:
            configuration.api_key = {"authorization": self._token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        super().__init__(configuration)
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=tenacity.stop_after_attempt(TRIES),
            wait=tenacity.wait_exponential_jitter(initial=timeouts.back_off_s, jitter=timeouts.back_off_s),
            before_sleep=self._report_retry,
            reraise=True,
        )

    def is_multi_user(self) -> bool:
        """Return whether each user of the server has a namespace.

        This is the first request to a server, so it also checks that the server is Kubeflow Pipelines 2.
        """
        try:
            return self._retry(self._ask_multi_user)
        except _TransientError as error:
            raise ServerUnavailableError(f"tried {TRIES} times: {error}") from error

    def get_text(self, path: str, **query: str) -> tuple[str, str]:
        """Return what the server holds at a path, with its content type.

        Args:
            path: the path below the endpoint.
            **query: the parameters of the query.
        """
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
        body: object = None,
        _preload_content: bool = True,
        _request_timeout: tuple[float, float] | None = None,
    ) -> RESTResponse:
        """Send a request, and repeat it while it fails without an effect. The other classes of the client call this.

        Args:
            method: the HTTP method.
            url: the full address.
            query_params: the parameters of the query.
            headers: the headers.
            post_params: the fields of a form, for an upload.
            body: the body.
            _preload_content: unused; the whole answer is always read.
            _request_timeout: unused; the time limits of this connection hold for all requests.

        Raises:
            SettingsError: if the server rejects the token.
            ClusterError: if the server does not answer, or rejects the request.
        """
        try:
            return self._retry(self._request_once, method, url, query_params, headers, post_params, body)
        except _TransientError as error:
            raise ServerUnavailableError(f"tried {TRIES} times: {error}") from error

    def deserialize(self, response: RESTResponse, response_type: str) -> object:
        """Return an answer as an object of the API, or as text for the type "bytes".

        Args:
            response: the answer.
            response_type: the name of its type.

        Raises:
            ClusterError: if the answer is not JSON.
        """
        if response_type == "bytes":
            return response.data.decode("utf-8", "replace")
        try:
            json.loads(response.data)
        except ValueError:
            raise self._not_kfp(response.getheader("Content-Type") or "something without a content type") from None
        return super().deserialize(response, response_type)

    def _ask_multi_user(self) -> bool:
        try:
            answer = kfp_server_api.HealthzServiceApi(self).healthz_service_get_healthz()
        except ResourceNotFoundError:
            raise ClusterError(
                f"{self.endpoint} does not have the API of Kubeflow Pipelines 2 (no /apis/v2beta1/healthz): the "
                "server is older, or kubeflow.endpoint lacks a path"
            ) from None
        if answer.multi_user is not None:
            return bool(answer.multi_user)
        # The server of the web page answers this request itself, even if the API server behind it does not answer.
        report = json.loads(self.last_response.data)
        if isinstance(report, dict) and report.get("apiServerReady") is False:
            raise _TransientError(
                f"{self.endpoint} is the web page of Kubeflow Pipelines, but the API server behind it does not answer: "
                "see kubectl get pods -l app=ml-pipeline in the namespace of Kubeflow Pipelines"
            )
        raise self._not_kfp("an unknown health report")

    def _request_once(
        self,
        method: str,
        url: str,
        query_params: Parameters | None,
        headers: dict[str, str] | None,
        post_params: Parameters | None,
        body: object,
    ) -> RESTResponse:
        try:
            return super().request(
                method, url, query_params, headers, post_params, body, _request_timeout=self._timeout
            )
        except kfp_server_api.ApiException as error:
            raise self._error(method, error) from error
        except (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.NewConnectionError) as error:
            raise _TransientError(self._unreachable(_root_cause(error))) from error
        except urllib3.exceptions.ReadTimeoutError as error:
            raise self._unanswered(method, f"{self.endpoint} did not answer within {self._timeout[1]:g} s") from error
        except urllib3.exceptions.HTTPError as error:
            raise self._unanswered(method, f"{self.endpoint} closed the connection: {_root_cause(error)}") from error

    def _error(self, method: str, error: kfp_server_api.ApiException) -> Exception:
        """Return the error of this project that corresponds to an error answer of the server."""
        if not error.status:  # an SSLError of urllib3, which kfp_server_api wraps
            return ClusterError(
                f"{self.endpoint} presents a certificate that is not trusted: {str(error.reason).splitlines()[-1]}. "
                "Set the variable SSL_CERT_FILE to a file with the certificates to trust"
            )
        answer = f"{error.status} {error.reason}: {_message(error.body)}"
        if error.status == 401 or 300 <= error.status < 400:
            problem = "rejects the token" if self._token else "requires a token"
            return SettingsError(
                f"{self.endpoint} {problem} ({error.status} {error.reason}): put a valid token in {TOKEN}, for example "
                "from kubectl create token SERVICE_ACCOUNT -n NAMESPACE --audience pipelines.kubeflow.org"
            )
        if error.status == 403:
            return SettingsError(
                f"{self.endpoint} forbids the request ({answer}): use a token with more rights in {TOKEN}, or name "
                "your own namespace in kubeflow.namespace"
            )
        if error.status == 404:
            return ResourceNotFoundError(f"{self.endpoint}: {answer}")
        if error.status == 409:
            return ResourceExistsError(f"{self.endpoint}: {answer}")
        if error.status in _TRANSIENT:
            text = f"{self.endpoint} is not ready: {answer}"
            # A proxy may answer with 502 to 504 although the server behind it has carried out the request.
            return _TransientError(text) if error.status == 429 else self._unanswered(method, text)
        return ClusterError(f"{self.endpoint} rejects the request: {answer}")

    def _unanswered(self, method: str, text: str) -> ClusterError:
        return _TransientError(text) if method == "GET" else OutcomeUnknownError(text)

    def _unreachable(self, cause: str) -> str:
        return (
            f"no Kubeflow Pipelines at {self.endpoint}: {cause}. Name its address with "
            f"--set kubeflow.endpoint=http://HOST:PORT, or forward it to this machine: {_FORWARD}"
        )

    def _not_kfp(self, content: str) -> ClusterError:
        return ClusterError(
            f"{self.endpoint} does not answer like Kubeflow Pipelines: it sent {content}. Set kubeflow.endpoint to the "
            f"address of its web page or its API. If there is a login page, put a token in {TOKEN}"
        )

    def _report_retry(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        error, wait = state.outcome.exception(), state.next_action.sleep
        self._report(f"{error}; trying again in {wait:.1f} s ({state.attempt_number + 1} of {TRIES})")


def _check_endpoint(endpoint: str) -> str:
    if "@" in endpoint:  # the message does not repeat the address, because it contains a password
        raise SettingsError(f"kubeflow.endpoint must not contain a password. Put a token in {TOKEN} instead")
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise SettingsError(
            f"kubeflow.endpoint {endpoint} is not an address: write http://HOST:PORT or https://HOST/PATH"
        )
    return endpoint.rstrip("/")


def _message(body: object) -> str:
    """Return the server's error message in one line. Its API, upload and log servers use different fields for it."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        answer = json.loads(text)
        text = str(answer.get("message") or answer.get("error_message") or answer.get("error") or text)
    except (ValueError, AttributeError):
        text = "" if "<html" in text.lower() else text
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]} ..."


def _root_cause(error: BaseException) -> str:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error) or type(error).__name__
