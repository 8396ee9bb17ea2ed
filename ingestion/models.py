"""Ingestion jobs and their dead letters: what every file gave, to the row."""

import uuid

from django.db import models
from django.db.models import F, Q
from django.utils import timezone


class IngestionJob(models.Model):
    """One file on its way into the store. At every checkpoint, rows read = loaded + duplicates + rejected."""

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        DONE = "done", "done"
        NEEDS_REVIEW = "needs_review", "needs review"
        STOPPED = "stopped", "stopped"
        FAILED = "failed", "failed"
        SKIPPED = "skipped", "skipped"
        REFUSED = "refused", "refused"
        CANCELLED = "cancelled", "cancelled"
        ROLLING_BACK = "rolling_back", "rolling back"
        ROLLED_BACK = "rolled_back", "rolled back"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    source_path = models.TextField()
    source_file = models.CharField(max_length=255)
    source = models.CharField(
        max_length=100, blank=True, default="", help_text="The name under which its files belong together."
    )
    size_bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    format = models.CharField(max_length=16)
    detected = models.JSONField(default=dict, help_text="Format, encoding and dialect, as the reader needs them.")
    mapping = models.JSONField(default=dict)
    retry_of = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="retries",
        help_text="The job whose dead letters this one reads again.",
    )  # fmt: skip
    engine = models.CharField(max_length=16, default="local", help_text="What works on it: this process or Spark.")
    state = models.CharField(max_length=16, choices=State.choices, default=State.RUNNING)

    request = models.JSONField(
        null=True, blank=True,
        help_text="What was asked for, of a job for the background: only such a job is taken up by a worker.",
    )  # fmt: skip
    requested_by = models.CharField(max_length=254, blank=True, default="")
    queued_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True, help_text="When the broker was last told of it.")
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Times taken up since its last checkpoint.")
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    waiting_since = models.DateTimeField(null=True, blank=True, help_text="Since when the store has not answered it.")

    content_bytes = models.BigIntegerField(default=0, help_text="The file's bytes, unpacked when it is compressed.")
    rows_read = models.BigIntegerField(default=0)
    rows_loaded = models.BigIntegerField(default=0)
    rows_duplicate = models.BigIntegerField(default=0)
    rows_rejected = models.BigIntegerField(default=0)
    bytes_read = models.BigIntegerField(default=0)
    roll_back = models.JSONField(null=True, blank=True, help_text="How far a roll back is.")
    rows_removed = models.BigIntegerField(default=0, help_text="Rows that its roll back took out of the store.")
    rows_handed_over = models.BigIntegerField(
        default=0, help_text="Rows that stayed when it was rolled back, as another job's."
    )

    chunk_rows = models.PositiveIntegerField(
        help_text="Rows a chunk; fixed for the job, so that its chunks are always the same."
    )
    chunks_done = models.PositiveIntegerField(default=0)
    goes_on_at = models.JSONField(
        default=dict, blank=True, help_text="Where its engine goes on, when the number of chunks does not say it."
    )
    chunk_at = models.DateTimeField(null=True, blank=True, help_text="ingested_at of the chunk that is being loaded.")

    stage_seconds = models.JSONField(default=dict)
    busy_seconds = models.FloatField(default=0.0)
    peak_memory_bytes = models.BigIntegerField(default=0)
    error_code = models.CharField(max_length=64, blank=True, default="")
    error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        permissions = [
            ("stop_job", "Can cancel ingestion jobs and have them go on"),
            ("roll_back_job", "Can roll ingestion jobs back"),
        ]
        constraints = [
            models.CheckConstraint(
                name="ingestion_job_counts_every_row",
                condition=Q(rows_read=F("rows_loaded") + F("rows_duplicate") + F("rows_rejected")),
            ),
        ]
        indexes = [
            models.Index(fields=["sha256", "size_bytes"], name="ingestion_job_file"),
            models.Index(
                fields=["queued_at"], name="ingestion_job_waiting", condition=Q(state__in=["queued", "running"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.source_file} ({self.state})"

    @property
    def rows_per_second(self) -> float:
        """Rows read for each second of work, pauses between runs left out."""
        return self.rows_read / self.busy_seconds if self.busy_seconds else 0.0

    @property
    def reject_share(self) -> float:
        return self.rows_rejected / self.rows_read if self.rows_read else 0.0


class IngestionEvent(models.Model):
    """Something that happened to a job, for its page: written by `ingestion.events.note`, the newest are kept."""

    job = models.ForeignKey(IngestionJob, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField()
    kind = models.CharField(max_length=32)
    message = models.TextField(blank=True, default="")
    actor = models.CharField(max_length=254, blank=True, default="", help_text="Who asked for it; empty: nobody.")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.kind} at {self.at:%Y-%m-%d %H:%M:%S}"


class RecordsInsert(models.Model):
    """An insert into the store that was begun: one row a chunk, in the order of the inserts (see ingestion/insert_log.py)."""

    id = models.BigAutoField(primary_key=True)
    ingested_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"insert {self.pk} of {self.ingested_at:%Y-%m-%d %H:%M:%S.%f}"


class DeadLetter(models.Model):
    """A row that was read and could not be loaded, with what it was and why."""

    job = models.ForeignKey(IngestionJob, on_delete=models.CASCADE, related_name="dead_letters")
    row = models.BigIntegerField(
        help_text="1 for the first record of the file, its header and blank lines not counted."
    )
    column = models.CharField(max_length=200, blank=True, default="")
    reason = models.CharField(max_length=64)
    message = models.TextField(blank=True, default="")
    raw = models.TextField(blank=True, default="")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["job", "row"]
        constraints = [models.UniqueConstraint(fields=["job", "row"], name="dead_letter_once_a_row")]

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason}"


class SavedMapping(models.Model):
    """A mapping of columns to fields that is kept by name, and used for the files of `source` where there is one."""

    name = models.CharField(max_length=100, unique=True)
    source = models.CharField(
        max_length=100,
        blank=True,
        default="",
        help_text="Its files are read with this mapping; empty: only when asked for.",
    )
    document = models.JSONField(help_text="Columns with their fields, and how names and dates are written.")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["source"], condition=~Q(source=""), name="saved_mapping_once_a_source"),
        ]

    def __str__(self) -> str:
        return self.name


class Upload(models.Model):
    """A file that an operator wants to load: where it is, what was found in it, how it is to be read, and the job it became."""

    class State(models.TextChoices):
        LOOKING = "looking", "being looked at"
        READY = "ready", "ready to load"
        REFUSED = "refused", "refused"
        STARTED = "started", "started"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=255, help_text="As it was given; never used as a path.")
    path = models.TextField(help_text="Where it lies for web and workers, or its s3:// URL.")
    is_stored = models.BooleanField(default=True, help_text="It was uploaded: its file is ours to remove.")
    size_bytes = models.BigIntegerField(default=0)
    source = models.CharField(max_length=100, blank=True, default="")
    retry_of = models.ForeignKey(
        IngestionJob, null=True, blank=True, on_delete=models.CASCADE, related_name="prepared_retries",
        help_text="The job whose rejected rows are to be read again.",
    )  # fmt: skip
    options = models.JSONField(default=dict, help_text="Format, table and sheet that were asked for.")
    document = models.JSONField(null=True, blank=True, help_text="The mapping that was asked for; empty: found out.")
    mapping_name = models.CharField(max_length=100, blank=True, default="")

    state = models.CharField(max_length=16, choices=State.choices, default=State.LOOKING)
    stage = models.CharField(max_length=100, blank=True, default="", help_text="What is being done with it.")
    turn = models.PositiveIntegerField(default=1, help_text="Rises whenever it is to be looked at anew.")
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Times a worker began to look in this turn.")
    sent_at = models.DateTimeField()
    result = models.JSONField(default=dict, help_text="What was found; see ingestion/previews.py.")
    error_code = models.CharField(max_length=64, blank=True, default="")
    error = models.TextField(blank=True, default="")

    job = models.OneToOneField(
        IngestionJob, null=True, blank=True, on_delete=models.SET_NULL, related_name="upload",
        help_text="The job that loads it.",
    )  # fmt: skip
    uploaded_by = models.CharField(max_length=254, blank=True, default="")
    created_at = models.DateTimeField()
    removed_at = models.DateTimeField(null=True, blank=True, help_text="When its file was removed.")

    class Meta:
        ordering = ["-created_at"]
        default_permissions = ("view",)
        permissions = [("load_file", "Can upload, preview and load files")]
        indexes = [
            models.Index(fields=["sent_at"], name="upload_looking", condition=Q(state="looking")),
            models.Index(
                fields=["created_at"], name="upload_kept", condition=Q(is_stored=True, removed_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return self.name


class WatchedSource(models.Model):
    """A folder, pattern or `s3://` prefix that is looked at every minute; what comes to lie there is loaded."""

    path = models.CharField(
        max_length=1000,
        unique=True,
        help_text="A folder or pattern as the workers see it (/srv/exports), or s3://bucket/prefix/.",
    )
    source = models.CharField(
        max_length=100,
        blank=True,
        default="",
        help_text="The name under which its files belong together; its saved mapping is used.",
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    looked_at = models.DateTimeField(null=True, blank=True, editable=False)
    error_code = models.CharField(max_length=64, blank=True, default="", editable=False)
    error = models.TextField(blank=True, default="", editable=False)

    class Meta:
        ordering = ["path"]

    def __str__(self) -> str:
        return self.path


class WatchedFile(models.Model):
    """A file that was seen in a watched source: once it is taken it is left alone until it changes."""

    watched = models.ForeignKey(WatchedSource, on_delete=models.CASCADE, related_name="files")
    path = models.TextField()
    stamp = models.CharField(max_length=200, help_text="Size with time of change, or with ETag.")
    seen_at = models.DateTimeField(help_text="When this stamp was first seen.")
    taken_at = models.DateTimeField(null=True, blank=True)
    job = models.ForeignKey(
        IngestionJob, null=True, blank=True, on_delete=models.SET_NULL, related_name="watched_files"
    )

    class Meta:
        ordering = ["-seen_at", "path"]
        constraints = [models.UniqueConstraint(fields=["watched", "path"], name="watched_file_once_a_source")]

    def __str__(self) -> str:
        return self.path
