"""What can go wrong with an object store, each with a code and what to do about it."""

from typing import Any

from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError, PartialCredentialsError

from config.errors import DomainError
from ingestion.formats.batches import FileChanged, RefusedFile


class SourceAway(DomainError):
    """503: where the file lies does not answer; nothing is wrong with it, the same call may go on later."""

    status = 503
    code = "SOURCE_AWAY"


class Stopped(SourceAway):
    """Whoever started it wants it to end."""

    code = "STOPPED"


class InvalidUrl(RefusedFile):
    code = "INVALID_URL"


class NoSuchBucket(RefusedFile):
    code = "NO_SUCH_BUCKET"


class NoSuchKey(RefusedFile):
    code = "NO_SUCH_KEY"


class SourceForbidden(RefusedFile):
    code = "SOURCE_FORBIDDEN"


class NoCredentials(RefusedFile):
    code = "NO_CREDENTIALS"


class SourceRefused(RefusedFile):
    code = "SOURCE_REFUSED"


_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_AWAY_CODES = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "InternalError",
        "ServiceUnavailable",
    }
)
_FORBIDDEN_CODES = frozenset(
    {
        "403",
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "AllAccessDisabled",
    }
)


def told(error: Exception, url: str) -> DomainError:
    """An error of the client as one that says what to do. What is not known to be final is `SourceAway`."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return NoCredentials(f"{url}: there are no keys for it. Set {_KEYS}, or give the machine a role.")
    if isinstance(error, ParamValidationError):
        return InvalidUrl(f"{url} is no URL of an object: {str(error).splitlines()[-1][:200]}.")
    if isinstance(error, ClientError):
        return _answered(error, url)
    reason = (str(error).splitlines() or [""])[0][:200].rstrip(".") or type(error).__name__
    return SourceAway(f"{url} cannot be reached: {reason}. Check S3_ENDPOINT_URL and the network, then try again.")


def _answered(error: ClientError, url: str) -> DomainError:
    answer: Any = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return NoSuchBucket(f"{url}: there is no such bucket. Check its name and S3_ENDPOINT_URL.")
    if code in ("NoSuchKey", "404", "NotFound"):
        return NoSuchKey(f"{url} is not there. Check bucket and key; keys are case-sensitive.")
    if code in ("PreconditionFailed", "412", "InvalidRange"):
        return FileChanged(f"{url} was replaced while it was fetched. Nothing of it was loaded: load it anew.")
    if code == "InvalidObjectState":
        return SourceRefused(f"{url} lies in an archive class. Restore it, then load it.")
    if code in _AWAY_CODES or status >= 500:
        return SourceAway(f"{url}: the store answers {code or status} for now. Try again.")
    if code in _FORBIDDEN_CODES or status == 403:
        return SourceForbidden(f"{url} may not be read with these keys ({code}). Check {_KEYS} and what they may read.")
    if status in (301, 307) or code == "AuthorizationHeaderMalformed":
        return SourceRefused(
            f"{url}: the bucket is in another region ({code or status}). Set AWS_DEFAULT_REGION to it."
        )
    return SourceRefused(f"{url}: the store refuses with {code or status}: {str(error)[:200]}")
