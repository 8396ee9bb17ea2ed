"""Files that operators bring in the admin: taken in, looked at by a worker, mapped, and started as a job once.

The row is the truth, as with jobs: a message that was lost is sent again by the sweep. Whoever looks at a file holds the
lock LOOKING, so that of all workers one at a time is busy with it; the others go on with their own work.
"""

import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F
from kombu.exceptions import OperationalError as BrokerError

from config.celery import app
from config.clickhouse.locks import is_held, try_lock, unlock
from config.errors import DomainError, NotFound
from ingestion import previews, s3
from ingestion.discovery import local_file, place_of, speaking_of
from ingestion.formats.batches import UnreadableFile
from ingestion.mapping_documents import MappingDocument
from ingestion.models import IngestionJob, Upload
from ingestion.previews import Question
from ingestion.queueing import QueueFull, enqueue
from ingestion.saved_mappings import find_mapping
from ingestion.upload_files import shown_name

log = structlog.get_logger(__name__)

TASK = "ingestion.look_at_upload"
LOOKING = "upload-looking"
WAITING_MAX = 200
ATTEMPTS_MAX = 2
RESEND_AFTER = timedelta(seconds=55)
RESENT_MAX = 100
_State = Upload.State
RETRIABLE = (IngestionJob.State.DONE, IngestionJob.State.NEEDS_REVIEW)


class NotReady(DomainError):
    """409: the file is being looked at, was refused, or is gone."""

    status = 409
    code = "NOT_READY"


class NotRetriable(DomainError):
    """409: the job has not ended, or rejected nothing."""

    status = 409
    code = "NOT_RETRIABLE"


def take_in(
    *,
    name: str,
    path: Path | str,
    is_stored: bool,
    size_bytes: int = 0,
    source: str = "",
    wanted: str = "auto",
    now: datetime,
    actor: str = "",
    key: uuid.UUID | None = None,
    retry_of: IngestionJob | None = None,
) -> Upload:
    """Keeps that there is a file to load, and has a worker look at it. Raises `QueueFull`."""
    if Upload.objects.filter(state=_State.LOOKING).count() >= WAITING_MAX:
        raise QueueFull(f"{WAITING_MAX} files wait to be looked at already. Is a worker running?")
    with transaction.atomic():
        upload = Upload.objects.create(
            id=key or uuid.uuid4(),
            name=shown_name(name),
            path=str(path),
            is_stored=is_stored,
            size_bytes=size_bytes,
            source=source,
            options={"wanted": wanted, "table": "", "sheet": ""},
            retry_of=retry_of,
            uploaded_by=actor,
            created_at=now,
            sent_at=now,
        )
        transaction.on_commit(lambda: send(upload))
    return upload


def allowed_path(text: str) -> Path | str:
    """A path or `s3://` URL that an operator may name: a file below one of INGEST_ADMIN_FOLDERS. Raises `UnreadableFile`."""
    if s3.is_s3(text):
        return text
    folders = [Path(folder).resolve() for folder in settings.INGEST_ADMIN_FOLDERS]
    if not folders or "\x00" in text:
        raise UnreadableFile("Only s3:// URLs can be named here. Folders are allowed by INGEST_ADMIN_FOLDERS.")
    path = Path(text)
    try:
        path = path.resolve()
        is_file = any(path.is_relative_to(folder) for folder in folders) and path.is_file()
    except (OSError, RuntimeError) as exc:
        raise UnreadableFile(f"This path cannot be read: {type(exc).__name__}.") from exc
    if not is_file:
        listed = ", ".join(map(str, folders))
        raise UnreadableFile(f"There is no such file in the folders that may be loaded from: {listed}.")
    return path


def prepare_retry(job: IngestionJob, *, now: datetime, actor: str = "") -> Upload:
    """A preview of a job's rejected rows, from its file, to be read again with another mapping.

    Raises `NotRetriable`, `QueueFull`.
    """
    if job.state not in RETRIABLE or not job.rows_rejected:
        raise NotRetriable(f"Job {job.pk} has not ended, or it rejected nothing: there is nothing to read again.")
    first = Upload.objects.filter(job=job).first()
    if first is not None and first.removed_at is not None:
        raise NotRetriable("The uploaded file of this job has been removed meanwhile. Upload it again.")
    return take_in(
        name=job.source_file,
        path=job.source_path,
        is_stored=False,
        source=job.source,
        now=now,
        actor=actor,
        retry_of=job,
    )


def send(upload: Upload) -> bool:
    """Tells a worker to look; False when the broker is away: then the sweep does it."""
    try:
        app.send_task(TASK, args=[str(upload.pk)], expires=RESEND_AFTER.total_seconds() * 4)
    except BrokerError as error:
        log.warning("upload_message_not_sent", upload=str(upload.pk), error=type(error).__name__)
        return False
    return True


def look_at(upload_id: uuid.UUID) -> Upload | None:
    """Looks at a file and keeps what was found, or why it was refused. None: another is at it, or there is nothing to do."""
    if not try_lock(LOOKING):
        return None
    try:
        begun = Upload.objects.filter(pk=upload_id, state=_State.LOOKING)
        upload = begun.first()
        if upload is None:
            return None
        if upload.attempts >= ATTEMPTS_MAX:
            _end(upload, _State.REFUSED, error_code="NOT_LOOKED_AT", error=_GAVE_UP)
            return upload
        begun.update(attempts=F("attempts") + 1)
        _look_at(upload)
        return upload
    finally:
        unlock(LOOKING)


_GAVE_UP = (
    "The workers that looked at this file ended before they were done: it may need too much memory or time. Look at the"
    " workers' log, or try `manage.py ingest FILE --dry-run`."
)


def _look_at(upload: Upload) -> None:
    def on_stage(stage: str) -> None:
        Upload.objects.filter(pk=upload.pk, turn=upload.turn).update(stage=stage)

    try:
        question = _question(upload)
        place = place_of(upload.path)
        on_stage("Fetching the file")
        with local_file(place) as path, speaking_of(upload.name if upload.is_stored else place, path):
            result = previews.look(path, question, on_stage=on_stage)
    except DomainError as exc:
        _end(upload, _State.REFUSED, error_code=exc.code, error=exc.message)
    except SoftTimeLimitExceeded:
        limit = "It takes too long to look at this file here. Load it with `manage.py ingest`, which has no limit."
        _end(upload, _State.REFUSED, error_code="TOOK_TOO_LONG", error=limit)
    except (OperationalError, InterfaceError):
        raise
    except Exception as exc:
        _end(upload, _State.REFUSED, error_code="INTERNAL_ERROR", error=f"{type(exc).__name__}: {exc}"[:1000])
        raise
    else:
        _end(upload, _State.READY, result=storable(result))


def storable(value: Any) -> Any:
    """JSON that Postgres takes: without NUL and half characters."""
    if isinstance(value, str):
        return value.replace("\x00", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {storable(name): storable(inner) for name, inner in value.items()}
    return [storable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _question(upload: Upload) -> Question:
    question = Question(**upload.options, retry_of=upload.retry_of)
    if upload.document is not None:
        document = MappingDocument.from_json(upload.document)
        return replace(question, mapping=document, mapping_name=upload.mapping_name, is_typed=True)
    kept = find_mapping("", source=upload.source)
    return question if kept is None else replace(question, mapping_name=kept[0], mapping=kept[1])


def _end(
    upload: Upload, state: str, *, result: dict[str, Any] | None = None, error_code: str = "", error: str = ""
) -> None:
    """Of the turn that was begun alone: whoever has asked for something else meanwhile is answered by the next."""
    upload.state, upload.error_code, upload.error, upload.stage = state, error_code, error.replace("\x00", ""), ""
    upload.result = {} if result is None else result
    changes = {name: getattr(upload, name) for name in ("state", "error_code", "error", "stage", "result")}
    if result is not None:
        upload.size_bytes = changes["size_bytes"] = result["size_bytes"]
    Upload.objects.filter(pk=upload.pk, turn=upload.turn, state=_State.LOOKING).update(**changes)


def look_again(
    upload: Upload,
    *,
    now: datetime,
    asked: dict[str, str],
    document: MappingDocument | None = None,
    mapping_name: str = "",
) -> Upload:
    """Has a worker look at the file in another way: another mapping; `asked`: format, table, sheet. Raises `NotReady`."""
    with transaction.atomic():
        kept = _locked(upload.pk)
        if kept.state == _State.STARTED or kept.removed_at is not None:
            raise NotReady("This file was started or removed already. Upload it again to load it in another way.")
        kept.options = asked
        kept.document = None if document is None else document.as_json()
        kept.mapping_name = mapping_name
        kept.state, kept.stage, kept.error_code, kept.error = _State.LOOKING, "", "", ""
        kept.turn, kept.attempts, kept.sent_at = kept.turn + 1, 0, now
        kept.save()
        transaction.on_commit(lambda: send(kept))
    return kept


def start(upload: Upload, *, now: datetime, actor: str = "", again: bool = False) -> tuple[IngestionJob, bool]:
    """Makes it a queued job, as it was previewed, once; returns the job and whether it is new.

    `again` loads a file that was loaded before all the same. Raises `NotReady`, and what `enqueue` raises.
    """
    with transaction.atomic():
        kept = _locked(upload.pk)
        if kept.job is not None:
            return kept.job, False
        if kept.state != _State.READY or kept.removed_at is not None:
            raise NotReady("This file is not ready to be loaded. Wait until it has been looked at, or upload it again.")
        document = MappingDocument.from_json(kept.result["document"])
        retry = kept.retry_of is not None
        job = enqueue(
            path=kept.path,
            name="" if s3.is_s3(kept.path) else kept.name,
            now=now,
            source=kept.source,
            mapping=(kept.mapping_name or kept.result["mapping_name"] or "preview", document),
            again=again or retry,
            retry_of=kept.retry_of,
            requested_by=actor,
            **({} if retry else kept.options),
        )
        kept.job, kept.state = job, _State.STARTED
        kept.save(update_fields=["job", "state"])
    return job, True


def sweep(*, now: datetime) -> int:
    """Sends again what waits for a look and nobody has come to. Returns how many."""
    if is_held(LOOKING):
        return 0
    lost = Upload.objects.filter(state=_State.LOOKING, sent_at__lte=now - RESEND_AFTER).order_by("sent_at")
    sent = 0
    for upload in lost[:RESENT_MAX]:
        if not send(upload):
            break
        Upload.objects.filter(pk=upload.pk).update(sent_at=now)
        sent += 1
    return sent


def send_next() -> None:
    """Tells a worker of the file that has waited longest: its own message may have come while the lock was held."""
    waiting = Upload.objects.filter(state=_State.LOOKING).order_by("sent_at").first()
    if waiting is not None:
        send(waiting)


def _locked(upload_id: uuid.UUID) -> Upload:
    kept = Upload.objects.select_for_update(of=("self",)).filter(pk=upload_id).first()
    if kept is None:
        raise NotFound("This upload is gone: it was not loaded in time. Upload the file again.")
    return kept
