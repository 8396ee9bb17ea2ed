"""Planted faults: each breaks one guard of the credit protocol and must turn at least one test red.

`python -m tests.faults.planted` copies the project aside, plants one fault at a time, runs the tests that guard the place
and reports. Exit code 1 when a fault survives: then a guard is not tested.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("accounts", "benchmarks", "config", "credits", "embedded", "ingestion", "search", "templates", "tests")
TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Fault:
    """In `path` the text `guard` is replaced by `broken`; `tests` are the pytest arguments that must then fail."""

    name: str
    path: str
    guard: str
    broken: str
    tests: str = "tests/credits"


FAULTS = [
    Fault(
        "an upload is started as often as it is sent",
        "ingestion/uploads.py",
        "        if kept.job is not None:\n",
        "        if False:\n",
        "tests/ingestion/test_uploads.py",
    ),
    Fault(
        "a look that comes late undoes a newer wish",
        "ingestion/uploads.py",
        "Upload.objects.filter(pk=upload.pk, turn=upload.turn, state=_State.LOOKING)",
        "Upload.objects.filter(pk=upload.pk)",
        "tests/ingestion/test_uploads.py",
    ),
    Fault(
        "an upload is stored however long it is",
        "ingestion/upload_files.py",
        "if self._written > settings.INGEST_UPLOAD_BYTES_MAX:",
        "if False:",
        "tests/ingestion/test_uploads.py",
    ),
    Fault(
        "any file of the machine may be named",
        "ingestion/uploads.py",
        "any(path.is_relative_to(folder) for folder in folders) and path.is_file()",
        "path.is_file()",
        "tests/ingestion/test_uploads.py",
    ),
    Fault(
        "the file of a job goes while its rejects may need it",
        "ingestion/retention.py",
        "job__state__in=_ENDED_WELL, job__rows_rejected=0, job__finished_at__lt=unused",
        "job__state__in=_ENDED_WELL, job__finished_at__lt=unused",
        "tests/ingestion/test_uploads.py",
    ),
    Fault(
        "a rejected cell runs as a formula",
        "ingestion/admin_job_pages.py",
        "if cell.startswith(_FORMULA)",
        "if False",
        "tests/ingestion/test_job_pages.py",
    ),
    Fault(
        "the tables of one server are taken for those of a cluster",
        "config/clickhouse/schema.py",
        'if engine and engine.startswith("Replicated") != bool(kind):',
        "if False:",
        "tests/config/test_clickhouse_cluster.py",
    ),
    Fault(
        "a table without a sharding key is spread by chance",
        "config/clickhouse/cluster.py",
        "if key is None:",
        "if False:",
        "tests/config/test_clickhouse_cluster.py",
    ),
    Fault(
        "anybody says that TLS was ended before him",
        "config/middleware.py",
        'if said == "https" and is_within(peer, settings.TRUSTED_PROXIES):',
        'if said == "https":',
        "tests/config/test_scheme_of_proxy.py",
    ),
    Fault(
        "a process that has hung still counts as alive",
        "config/alive.py",
        "if within_s is not None and age_s > within_s else None",
        "if False else None",
        "tests/config/test_alive.py",
    ),
    Fault(
        "where a part of a file begins is presumed and believed",
        "ingestion/engines/spark.py",
        "if prepared.start != place:",
        "if False:",
        "tests/spark/test_engines_agree.py",
    ),
    Fault(
        "a decompression bomb is unpacked to its end",
        "ingestion/formats/encoding.py",
        "if text.size > most:",
        "if False:",
        "tests/ingestion/test_compression.py",
    ),
    Fault(
        "a name in a zip leads out of it",
        "ingestion/formats/compression.py",
        'if ".." in parts or parts[0] == "" or ":" in parts[0]:',
        "if False:",
        "tests/ingestion/test_compression.py",
    ),
    Fault(
        "a forged directory of a zip fills the memory",
        "ingestion/formats/compression.py",
        "if len(data) > most:",
        "if False:",
        "tests/ingestion/test_compression.py",
    ),
    Fault(
        "an archive that is cut off ends as if it were whole",
        "ingestion/formats/compression.py",
        'if wanting and not packed and not self._current.eof:\n                raise EOFError("it ends in the middle")',
        'if wanting and not packed and not self._current.eof:\n                return b""',
        "tests/ingestion/test_compression.py",
    ),
    Fault(
        "a literal without end is kept in memory",
        "ingestion/formats/sql_statements.py",
        "if len(window.buffer) - start <= limits.ROW_BYTES_MAX and not window.final:",
        "if not window.final:",
        "tests/ingestion/test_sql_dump.py",
    ),
    Fault(
        "an INSERT inside a trigger makes rows",
        "ingestion/formats/sql_statements.py",
        "elif _ROUTINE.match(buffer, at):",
        "elif False:",
        "tests/ingestion/test_sql_dump.py",
    ),
    Fault(
        "declarations in an XML document are let in",
        "ingestion/formats/xml_guard.py",
        "def _refuse() -> NoReturn:\n",
        "def _refuse() -> None:\n    return\n",
        "tests/ingestion/test_xml_rows.py",
    ),
    Fault(
        "a tag without end is kept in memory",
        "ingestion/formats/xml_guard.py",
        "return fed - max(0, parser.CurrentByteIndex) > limits.ROW_BYTES_MAX",
        "return False",
        "tests/ingestion/test_xml_rows.py",
    ),
    Fault(
        "a row group of any size is read",
        "ingestion/formats/parquet_rows.py",
        "if unpacked > ROW_GROUP_BYTES_MAX:",
        "if False:",
        "tests/ingestion/test_parquet_rows.py",
    ),
    Fault(
        "a footer's forged count is believed",
        "ingestion/formats/parquet_rows.py",
        "if counted != metadata.num_rows or counted > max(ROWS_FREE, ROWS_A_BYTE * size):",
        "if counted != metadata.num_rows:",
        "tests/ingestion/test_parquet_rows.py",
    ),
    Fault(
        "a footer that ends its reader ends the loader",
        "ingestion/formats/parquet_probe.py",
        "if outcome.returncode:",
        "if False:",
        "tests/ingestion/test_parquet_rows.py",
    ),
    Fault(
        "a workbook's part unpacks to any size",
        "ingestion/formats/excel_xlsx.py",
        "if bomb or part.file_size > PART_BYTES_MAX:",
        "if part.file_size > PART_BYTES_MAX:",
        "tests/ingestion/test_excel_rows.py",
    ),
    Fault(
        "dates of the 1904 system are four years off",
        "ingestion/formats/excel_xlsx.py",
        'self._since_1904 = values.get("date1904", "0") in ("1", "true")',
        "self._since_1904 = False",
        "tests/ingestion/test_excel_rows.py",
    ),
    Fault(
        "a database's statement may do more than read",
        "ingestion/formats/sqlite_rows.py",
        "return sqlite3.SQLITE_OK if action in _ALLOWED or counts else sqlite3.SQLITE_DENY",
        "return sqlite3.SQLITE_OK",
        "tests/ingestion/test_sqlite_rows.py",
    ),
    Fault(
        "a database whose pages lead round in circles is read as it comes",
        "ingestion/formats/sqlite_rows.py",
        "if any(map(ge, [rowids[0] - 1 if last is None else last, *rowids], rowids)):",
        "if False:",
        "tests/ingestion/test_sqlite_rows.py",
    ),
    Fault(
        "a scan of a database has no deadline",
        "ingestion/formats/sqlite_rows.py",
        "return time.monotonic() > self._ends",
        "return False",
        "tests/ingestion/test_sqlite_rows.py",
    ),
    Fault(
        "a database's value fills the memory",
        "ingestion/formats/sqlite_rows.py",
        "self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.FIELD_BYTES_MAX)",
        "pass",
        "tests/ingestion/test_sqlite_rows.py",
    ),
    Fault(
        "a database that is being written to is read",
        "ingestion/formats/sqlite_rows.py",
        "if beside.is_file() and beside.stat().st_size:",
        "if False:",
        "tests/ingestion/test_sqlite_rows.py",
    ),
    Fault(
        "an object that was replaced is read",
        "ingestion/s3.py",
        "IfMatch=found.etag, ",
        "",
        "tests/ingestion/test_s3.py",
    ),
    Fault(
        "an object of any size is fetched",
        "ingestion/s3.py",
        "if found.size > most:",
        "if False:",
        "tests/ingestion/test_s3.py",
    ),
    Fault(
        "a fetch has no deadline",
        "ingestion/s3.py",
        "if time.monotonic() > ends:",
        "if False:",
        "tests/ingestion/test_s3.py",
    ),
    Fault(
        "a fetch that broke off begins anew",
        "ingestion/s3.py",
        'options: dict[str, Any] = {"Range": f"bytes={at}-"} if at else {}',
        "options: dict[str, Any] = {}",
        "tests/ingestion/test_s3.py",
    ),
    Fault(
        "an object's name leads out of its folder",
        "ingestion/s3.py",
        'return name if name.strip(".") else "object"',
        "return name",
        "tests/ingestion/test_s3.py",
    ),
    Fault(
        "a copy that is being read is taken for one that was left",
        "ingestion/temporary.py",
        "except BlockingIOError:\n        return False",
        "except BlockingIOError:\n        return True",
        "tests/ingestion/test_s3.py",
    ),
    Fault(
        "a file that still grows is taken",
        "ingestion/watching.py",
        "(s3.is_s3(path) or file.seen_at <= now - STANDS_STILL)",
        "True",
        "tests/ingestion/test_watching.py",
    ),
    Fault(
        "a watched file is taken at every look",
        "ingestion/watching.py",
        "if file.taken_at is None and (",
        "if (",
        "tests/ingestion/test_watching.py",
    ),
    Fault(
        "a look takes any number of files",
        "ingestion/watching.py",
        "ready[:TAKEN_A_LOOK_MAX]",
        "ready",
        "tests/ingestion/test_watching.py",
    ),
    Fault(
        "a file that changed while it was read is done",
        "ingestion/formats/encoding.py",
        "if now != self:",
        "if False:",
        "tests/ingestion/test_changed_files.py",
    ),
    Fault(
        "long values of a JSON array fill the memory",
        "ingestion/formats/json_rows.py",
        "if rows.full or source.bytes_read - seen > BATCH_BYTES:",
        "if rows.full:",
        "tests/ingestion/test_json_rows.py",
    ),
    Fault(
        "an open quote swallows the rest of a dump",
        "ingestion/formats/sql_statements.py",
        "match = _STATEMENT_LINE.search(",
        "match = None and _STATEMENT_LINE.search(",
        "tests/ingestion/test_sql_dump.py",
    ),
    Fault(
        "two tables of one dump are one job",
        "ingestion/jobs.py",
        '"records", "sql"',
        '"records"',
        "tests/ingestion/test_sql_jobs.py",
    ),
    Fault(
        "the same record of two databases is two records",
        "ingestion/cleansing/normalise.py",
        "same = all(by_words.get(name) is column for name, column in work.metadata.items())",
        "same = True",
        "tests/ingestion/test_sql_jobs.py",
    ),
    Fault(
        "a mapping is applied to a file that lacks its columns",
        "ingestion/mapping_documents.py",
        "if missing:",
        "if False:",
        "tests/ingestion/test_mapping_documents.py",
    ),
    Fault(
        "a retry reads another file by the numbers of the first one's rows",
        "ingestion/jobs.py",
        "if (known.size_bytes, known.sha256) != (job.size_bytes, job.sha256):",
        "if False:",
        "tests/ingestion/test_retry.py",
    ),
    Fault(
        "a member of a list is kept beside its list",
        "ingestion/cleansing/normalise.py",
        "if is_list_member(column) and (target is None or target in given):",
        "if False:",
        "tests/ingestion/test_normalise.py",
    ),
    Fault(
        "a stopped job's file counts as loaded",
        "ingestion/jobs.py",
        "        state__in=_ENDED,\n        retry_of=None,",
        "        retry_of=None,",
        "tests/ingestion/test_ingest_command.py",
    ),
    Fault(
        "a job that is to be cancelled loads to its end",
        "ingestion/jobs.py",
        "return should_stop() or is_cancelled(job)",
        "return should_stop()",
        "tests/ingestion/test_cancelling.py",
    ),
    Fault(
        "a worker takes up a job that another works on",
        "ingestion/working.py",
        "if job is None or not try_lock(job_lock(job)):",
        "if job is None:",
        "tests/ingestion/test_queueing.py",
    ),
    Fault(
        "the sweep sends jobs again that are worked on",
        "ingestion/queueing.py",
        "orphans = [job for job in running if not is_held(job_lock(job))]",
        "orphans = list(running)",
        "tests/ingestion/test_queueing.py",
    ),
    Fault(
        "a job that lost its lock writes its checkpoint",
        "ingestion/checkpoints.py",
        "if not holds(lock):",
        "if False:",
        "tests/ingestion/test_outage.py",
    ),
    Fault(
        "the second attempt of a chunk does not know the rows of the first",
        "ingestion/checkpoints.py",
        "if job.chunk_at is not None:",
        "if False:",
        "tests/ingestion/test_jobs.py",
    ),
    Fault(
        "a roll back takes the rows of other jobs along",
        "ingestion/rolling_back.py",
        'rows = removal.hand_over(job.pk, part=part, of=plan["parts"], names=_file_names)',
        "rows = 0",
        "tests/ingestion/test_rolling_back.py",
    ),
    Fault(
        "a roll back that goes on leaves out what it had done before",
        "ingestion/rolling_back.py",
        "            removal.forget(job.pk, part=part)\n        rows =",
        "            continue\n        rows =",
        "tests/ingestion/test_rolling_back.py",
    ),
    Fault(
        "a chunk is loaded without a note of what others had delivered",
        "ingestion/loader.py",
        "if known.elsewhere.num_rows:",
        "if False:",
        "tests/ingestion/test_rolling_back.py",
    ),
    Fault(
        "a rolled back job can be rolled back again",
        "ingestion/rolling_back.py",
        "    if job.state in ROLLABLE:\n        return",
        "    if job.state not in (_State.QUEUED, _State.RUNNING):\n        return",
        "tests/ingestion/test_rolling_back.py",
    ),
    Fault(
        "a loader's filter never learns what other jobs insert",
        "ingestion/loader.py",
        "            known_ids = self._with_inserts_of_others(known_ids)\n",
        "            pass\n",
        "tests/ingestion/test_loader.py",
    ),
    Fault(
        "a loader believes that its filter holds an insert that broke off",
        "ingestion/loader.py",
        "                place = insert_log.announce(at)\n",
        "                place = self._seen = insert_log.announce(at)\n",
        "tests/ingestion/test_loader.py",
    ),
    Fault(
        "a loader's filter forgets what the loader itself inserts",
        "ingestion/loader.py",
        '                    known_ids.add(fresh.column("id"))\n',
        "",
        "tests/ingestion/test_loader.py",
    ),
    Fault(
        "a filter that is full forgets",
        "ingestion/known_ids.py",
        "                self._filters.append(last)\n",
        "                self._filters[-1] = last\n",
        "tests/ingestion/test_known_ids.py",
    ),
    Fault(
        "a source's numbers lose their text when JSON lines are read together",
        "ingestion/formats/json_blocks.py",
        "if pa.types.is_int64(kind) and _MINUS_ZERO.search(part):",
        "if False:",
        "tests/ingestion/test_json_blocks.py",
    ),
    Fault(
        "an alert of a low balance fires at every pass",
        "credits/alerts.py",
        "if low and not state.credits_fired:",
        "if low:",
        "tests/credits/test_alerts.py",
    ),
    Fault(
        "an alert of a low percentage fires at every pass",
        "credits/alerts.py",
        "if low and not state.percent_fired:",
        "if low:",
        "tests/credits/test_alerts.py",
    ),
    Fault(
        "an alert is armed again when a grant is used up",
        "credits/alerts.py",
        "elif not low and (standing.balance > state.percent_lowest or standing.low_percent != state.low_percent):",
        "elif not low:",
        "tests/credits/test_alerts.py",
    ),
    Fault(
        "two passes make the alerts of one account",
        "credits/alerts.py",
        "AlertState.objects.select_for_update(skip_locked=True).filter(",
        "AlertState.objects.filter(",
        "tests/credits/test_alerts.py",
    ),
    Fault(
        "an alert waits for a change of the balance",
        "credits/alerts.py",
        '" IS DISTINCT FROM (s.balance, s.credit_seq, s.low_credits, s.low_percent)"',
        '" IS DISTINCT FROM (s.balance, s.credit_seq, s.low_credits, s.low_percent) AND s.balance IS DISTINCT FROM a.balance"',
        "tests/credits/test_alerts.py",
    ),
    Fault(
        "test alerts have no limit",
        "credits/alerts.py",
        "if len(times) >= TESTS_MAX:",
        "if False:",
        "tests/credits/test_alert_api.py",
    ),
    Fault(
        "the log of alerts is everybody's",
        "credits/alert_log.py",
        "found = Alert.objects.filter(account=account)",
        "found = Alert.objects.all()",
        "tests/credits/test_alert_api.py",
    ),
    Fault(
        "an alert is tried for ever",
        "credits/alert_delivery.py",
        "ATTEMPTS_MAX = 8",
        "ATTEMPTS_MAX = 10**4",
        "tests/credits/test_alert_delivery.py",
    ),
    Fault(
        "an attempt at an alert writes over the next one",
        "credits/alert_delivery.py",
        "filter(pk=delivery.pk, claim=delivery.claim)",
        "filter(pk=delivery.pk)",
        "tests/credits/test_alert_delivery.py",
    ),
    Fault(
        "an alert that a dead process was sending is never sent",
        "credits/alert_delivery.py",
        "CLAIM_KEPT = timedelta(minutes=3)",
        "CLAIM_KEPT = timedelta(days=3)",
        "tests/credits/test_alert_delivery.py",
    ),
    Fault(
        "each attempt at a webhook is another event",
        "credits/alert_messages.py",
        'return f"evt_{alert.event_id.hex}"',
        'return f"evt_{id(alert)}"',
        "tests/credits/test_alert_delivery.py",
    ),
    Fault(
        "a webhook's old secret is valid for ever",
        "credits/alert_settings.py",
        "if until is not None and now < until",
        "if until is not None",
        "tests/credits/test_alert_delivery.py",
    ),
    Fault(
        "a webhook's signature leaves the body out",
        "credits/webhooks.py",
        'signed = f"{event_id}.{timestamp}.".encode() + body',
        'signed = f"{event_id}.{timestamp}.".encode()',
        "tests/credits/test_webhooks.py",
    ),
    Fault(
        "a webhook is sent wherever its name leads",
        "credits/webhooks.py",
        "targets = webhook_addresses.public_addresses(address, resolver=resolver)",
        "targets = list(resolver(address.host, address.port))",
        "tests/credits/test_alert_delivery.py",
    ),
    Fault(
        "a webhook is saved wherever its name leads",
        "credits/alert_settings.py",
        "    if webhook_url:\n        check_webhook(",
        "    if False:\n        check_webhook(",
        "tests/credits/test_alert_api.py",
    ),
    Fault(
        "a webhook takes the certificate of another host",
        "credits/webhooks.py",
        "server_hostname=address.host)",
        'server_hostname="hooks.example.com")',
        "tests/credits/test_webhooks.py",
    ),
    Fault(
        "a webhook's receiver may answer as slowly as it likes",
        "credits/webhooks.py",
        "same.shutdown(socket.SHUT_RDWR)",
        "pass",
        "tests/credits/test_webhooks.py",
    ),
    Fault(
        "a webhook may go to an address that another one holds",
        "credits/webhook_addresses.py",
        "if address in _NAT64:",
        "if False:",
        "tests/credits/test_webhook_addresses.py",
    ),
    Fault(
        "a webhook needs only one public address",
        "credits/webhook_addresses.py",
        "        if not may_connect(text):\n",
        "        if not any(map(may_connect, found)):\n",
        "tests/credits/test_webhook_addresses.py",
    ),
    Fault(
        "a webhook may go to a port that other services have",
        "credits/webhook_addresses.py",
        "port < PORT_UNPRIVILEGED_MIN",
        "port < 0",
        "tests/credits/test_webhook_addresses.py",
    ),
    Fault(
        "a settle repeated is charged again",
        "credits/lua/settle.lua",
        "local result = redis.call('GET', KEYS[2])",
        "local result = false",
    ),
    Fault(
        "a settle of another attempt is accepted",
        "credits/lua/settle.lua",
        "elseif held_attempt ~= attempt then",
        "elseif false then",
    ),
    Fault(
        "a stream's chunks are charged in full each time",
        "credits/lua/settle.lua",
        "local debit = math.max(0, total - paid)",
        "local debit = total",
    ),
    Fault(
        "a total above the hold is charged",
        "credits/lua/settle.lua",
        "if total > amount then",
        "if false then",
    ),
    Fault(
        "a late settle of a lost hold is charged",
        "credits/lua/settle.lua",
        "if now > tonumber(ARGV[6]) then",
        "if false then",
    ),
    Fault(
        "a lost hold is settled whatever the balance",
        "credits/lua/settle.lua",
        "if balance - held < needed then",
        "if false then",
    ),
    Fault(
        "a sweep releases holds before their deadline",
        "credits/lua/settle.lua",
        "if tonumber(held_deadline) > now then",
        "if false then",
    ),
    Fault(
        "a released attempt leaves no mark",
        "credits/lua/settle.lua",
        "local kept = releasing and math.max(1, deadline - now) or tonumber(ARGV[8])",
        "local kept = releasing and 1 or tonumber(ARGV[8])",
        "tests/credits/test_metering.py",
    ),
    Fault(
        "holds do not count against the balance",
        "credits/lua/admit.lua",
        "local free = tonumber(account[4]) - tonumber(account[5])",
        "local free = tonumber(account[4])",
    ),
    Fault(
        "the same attempt holds twice",
        "credits/lua/admit.lua",
        "  if hold then\n    local deadline",
        "  if false then\n    local deadline",
    ),
    Fault(
        "a replay is charged again",
        "credits/lua/admit.lua",
        "if paid_before then",
        "if false then",
    ),
    Fault(
        "a download is replayed whole for the price of a part",
        "credits/lua/admit.lua",
        "if state == 'settled' then",
        "if state == 'settled' or tonumber(known_total) > 0 then",
        "tests/search/test_download_api.py",
    ),
    Fault(
        "an idempotency key is not tied to its body",
        "credits/lua/admit.lua",
        "if known and known ~= ARGV[3] then",
        "if false then",
    ),
    Fault(
        "the rate window is counted and not enforced",
        "credits/lua/admit.lua",
        "if left <= 0 then",
        "if false then",
    ),
    Fault(
        "any secret under a known id is accepted",
        "credits/lua/admit.lua",
        "if key[1] ~= ARGV[1] then",
        "if false then",
    ),
    Fault(
        "a key hash is believed after a load",
        "credits/lua/admit.lua",
        "if not key[1] or key[2] ~= account[1] or not key[9] then",
        "if not key[1] or not key[9] then",
        "tests/accounts tests/credits",
    ),
    Fault(
        "the generation is not looked at",
        "credits/lua/account.lua",
        "return epoch and not pending and gen == generation()",
        "return epoch and not pending",
    ),
    Fault(
        "a pending load counts",
        "credits/lua/account.lua",
        "return epoch and not pending and gen == generation()",
        "return epoch and gen == generation()",
    ),
    Fault(
        "holds and results survive a load",
        "credits/lua/load.lua",
        "redis.call('DEL', KEYS[1])",
        "",
    ),
    Fault(
        "a slower load overwrites a later one",
        "credits/lua/load.lua",
        "if known and tonumber(known) >= tonumber(ARGV[1]) then",
        "if false then",
    ),
    Fault(
        "a load begins without closing the account",
        "credits/lua/close.lua",
        "redis.call('HSET', KEYS[1], 'pending', '0', 'closed', int(now))",
        "",
        "tests/credits/test_loading.py",
    ),
    Fault(
        "a load that was closed again is switched on",
        "credits/lua/activate.lua",
        "if account[3] and account[3] ~= ARGV[1] then",
        "if false then",
        "tests/credits/test_loading.py",
    ),
    Fault(
        "a hash of an epoch that has ended counts",
        "credits/lua/close.lua",
        "if account[1] == ARGV[1] and ARGV[2] ~= '1' then",
        "if ARGV[2] ~= '1' then",
        "tests/credits/test_loading.py",
    ),
    Fault(
        "a grant from a clock ahead of ours cannot pay",
        "credits/ledger_rows.py",
        "WHERE account_id = ANY(%s) AND remaining > 0",
        "WHERE account_id = ANY(%s) AND remaining > 0 AND effective_at <= now()",
        "tests/credits/test_ledger.py",
    ),
    Fault(
        "a take is not limited to what is available",
        "credits/lua/take.lua",
        "local taken = math.min(tonumber(ARGV[2]), tonumber(account[4]) - tonumber(account[5]))",
        "local taken = tonumber(ARGV[2])",
    ),
    Fault(
        "a take is applied at every delivery",
        "credits/lua/take.lua",
        "if credit_seq <= applied then",
        "if false then",
    ),
    Fault(
        "a take is booked past what its grant has left",
        "credits/ledger.py",
        "return min(rest, sum(grant.remaining for grant in open_grants if grant.id == decrease.grant_id))",
        "return rest",
    ),
    Fault(
        "open takes are not booked at a load",
        "credits/ledger.py",
        "    _book_open_decreases(account, now=now)\n",
        "",
    ),
    Fault(
        "a grant that is being taken back is drawn first",
        "credits/grants.py",
        "            grant.ending,\n",
        "",
    ),
    Fault(
        "an add is applied at every delivery",
        "credits/lua/apply.lua",
        "if credit_seq <= applied then",
        "if false then",
    ),
    Fault(
        "adds are applied out of order",
        "credits/lua/apply.lua",
        "if credit_seq ~= applied + 1 then",
        "if false then",
    ),
    Fault(
        "the cursor moves without comparing",
        "credits/lua/move_cursor.lua",
        "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then",
        "if false then",
    ),
    Fault(
        "the cursor that a process saw last is trusted",
        "credits/counters.py",
        'and (found or b"") == cursor',
        "and True",
    ),
    Fault(
        "the cursor outlives its stream",
        "credits/lua/move_cursor.lua",
        "if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then",
        "if false then",
    ),
    Fault(
        "the journal is trimmed behind the ledger alone",
        "credits/lua/trim.lua",
        "before(ledger, usage) and ledger or usage",
        "ledger",
    ),
    Fault(
        "there is no fence of seq: an event delivered twice is booked twice",
        "credits/ledger.py",
        "elif event.seq is not None and event.seq > account.drained_seq:",
        "else:",
    ),
    Fault(
        "there is no fence of epoch: a late event is booked",
        "credits/ledger.py",
        "elif event.epoch < account.epoch:",
        "elif False:",
    ),
    Fault(
        "the booking rule forgets what was paid",
        "credits/ledger.py",
        "booked = min(event.debit, max(0, event.total - paid_before))",
        "booked = event.debit",
    ),
    Fault(
        "the unbooked part of a debit is not returned",
        "credits/ledger.py",
        "if event.debit > booked:",
        "if False:",
    ),
    Fault(
        "a COPY that Postgres breaks off ends the drain",
        "credits/entry_writer.py",
        "with connection.wrap_database_errors, cursor.copy(statement) as copy:",
        "with cursor.copy(statement) as copy:",
        "tests/credits/test_ledger.py",
    ),
    Fault(
        "grants are not drawn",
        "credits/ledger.py",
        "grants.draw(open_grants, booked)",
        "[]",
    ),
    Fault(
        "an epoch is raised over another load",
        "credits/loading.py",
        "if account is None or account.epoch != epoch:",
        "if account is None:",
    ),
    Fault(
        "a load is switched on without reading the epoch again",
        "credits/loading.py",
        "return current == epoch and counters.activate(",
        "return counters.activate(",
        "tests/credits/test_loading.py",
    ),
    Fault(
        "a load does not book the surviving journal",
        "credits/loading.py",
        "        ledger.catch_up(account_number % PARTITIONS, now=timezone.now())\n",
        "",
    ),
    Fault(
        "a load is switched on at a server that it was not written for",
        "credits/lua/activate.lua",
        "if account[1] ~= ARGV[1] or account[2] ~= generation() then",
        "if account[1] ~= ARGV[1] then",
        "tests/cluster/test_reshard.py -m cluster",
    ),
    Fault(
        "a partition that cannot be read stops the drain of all",
        "credits/counters.py",
        'return JournalPage(partition, b"", [], refused=reply)',
        "raise reply",
        "tests/cluster/test_reshard.py -m cluster",
    ),
    Fault(
        "a script makes up the name of a key",
        "credits/lua/settle.lua",
        "  redis.call('ZREM', KEYS[3], member)\n  if sweeping then",
        "  redis.call('ZREM', string.gsub(KEYS[1], 'acct:.*', 'holds'), member)\n  if sweeping then",
        "tests/credits/test_declared_keys.py",
    ),
    Fault(
        "a server that serves an epoch that has ended is left to it",
        "credits/drain.py",
        "if live.usable and live.epoch <= epoch:",
        "if False:",
        "tests/credits/test_loading.py",
    ),
    Fault(
        "the reserve pays again what the ledger knows as paid",
        "credits/reserve.py",
        "booked = max(0, total - paid)",
        "booked = total",
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "a settle that timed out is charged again as another operation",
        "credits/metering.py",
        "            operation=hold.operation,\n            total=total,",
        "            operation=str(uuid.uuid4()),\n            total=total,",
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "a load gives Redis the reserve, too",
        "credits/loading.py",
        "balance=raised.balance - raised.reserve,",
        "balance=raised.balance,",
        "tests/credits/test_reserve.py",
    ),
    Fault(
        "the reserve is spent without the row lock",
        "credits/ledger_rows.py",
        " WHERE number = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
        " WHERE number = ANY(%s) ORDER BY id",
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "a short admit moves the reserve and keeps it",
        "credits/ledger.py",
        "    moved, account.reserve = account.reserve, 0\n",
        "    moved = account.reserve\n",
        "tests/credits/test_reserve.py",
    ),
    Fault(
        "the reserve pays more than it has",
        "credits/reserve.py",
        "if booked > account.reserve:",
        "if booked > account.balance:",
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "the drain books what only the reserve has",
        "credits/ledger.py",
        "if booked > account.balance - account.reserve or",
        "if booked > account.balance or",
        "tests/credits/test_reserve.py",
    ),
    Fault(
        "Redis does not learn what the reserve has paid",
        "credits/reserve.py",
        "        batch.tell(account, Command.Kind.NOTE, booked, family=family)\n",
        "",
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "a decrease that the reserve pays is not taken from it",
        "credits/ledger.py",
        "        account.reserve -= booked\n        _book_decrease(",
        "        _book_decrease(",
        "tests/credits/test_reserve.py",
    ),
    Fault(
        "a top-up gives Redis what it lets the reserve grow by",
        "credits/ledger.py",
        "batch.tell(account, Command.Kind.ADD, amount - reserved)",
        "batch.tell(account, Command.Kind.ADD, amount)",
        "tests/credits/test_reserve.py",
    ),
    Fault(
        "a key's secret is not compared without Redis",
        "credits/reserve.py",
        "if not hmac.compare_digest(state.digest, key.digest):",
        "if False:",
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "everybody asks a server that does not answer",
        "config/breaker.py",
        "            if now < self._next_probe:\n                return False\n",
        "",
        "tests/config/test_breaker.py",
    ),
    Fault(
        "a request that Redis and the reserve have charged is logged twice",
        "credits/usage.py",
        "    requests = _without_those_of_the_reserve(requests)\n",
        "",
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "a clock of Redis that is ahead hides what the reserve has paid",
        "credits/ledger_rows.py",
        "min(now, min(event.at for event in asked)) - PAID_WINDOW",
        "min(event.at for event in asked) - PAID_WINDOW",
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "metering fails open when Redis is away",
        "credits/metering.py",
        "    return _ask_reserve(question), True",
        '    return counters.Admission("OK"), True',
        "tests/credits/test_without_redis.py",
    ),
    Fault(
        "a slow writer brings a revoked key back",
        "accounts/lua/write_key.lua",
        "tonumber(known[2]) > tonumber(ARGV[3])",
        "false",
        "tests/accounts",
    ),
    Fault(
        "a revocation waits for Postgres",
        "accounts/revocation.py",
        "noted = _note(public_id, now=now, actor=actor, reason=reason)",
        "noted = False",
        "tests/accounts/test_revocation.py",
    ),
    Fault(
        "a revocation is told to Postgres alone",
        "accounts/revocation.py",
        "    return key_state.publish([public_id])\n",
        "    return True\n",
        "tests/accounts/test_revocation.py tests/accounts/test_services.py",
    ),
    Fault(
        "a noted revocation is not refused yet",
        "accounts/lua/revoke_key.lua",
        "redis.call('HSET', KEYS[1], 'state', 'revoked')",
        "",
        "tests/accounts/test_revocation.py",
    ),
    Fault(
        "a load brings back a key whose revocation is pending",
        "accounts/lua/write_key.lua",
        "redis.call('HEXISTS', KEYS[2], ARGV[11]) == 1 and 'revoked' or ARGV[4]",
        "ARGV[4]",
        "tests/accounts/test_revocation.py",
    ),
    Fault(
        "a revocation is forgotten before Postgres knows it",
        "accounts/revocation.py",
        '        return Revocation(public_id, ("redis",))',
        '        _forget(public_id)\n        return Revocation(public_id, ("redis",))',
        "tests/accounts/test_revocation.py",
    ),
    Fault(
        "a pending revocation is answered with 200",
        "accounts/api.py",
        "status=202 if done.pending else 200",
        "status=200",
        "tests/accounts/test_api.py",
    ),
    Fault(
        "a first cap counts from the last load",
        "credits/key_limits.py",
        "if before is None and after is not None:",
        "if False:",
        "tests/accounts/test_admin_keys.py",
    ),
    Fault(
        "a cap is set for one key of its family",
        "accounts/services.py",
        "            told += others\n",
        "",
        "tests/accounts/test_services.py",
    ),
    Fault(
        "usage is copied before it is booked",
        "credits/usage.py",
        "if counters.is_reached(booked_up_to[page.partition], stream_id)",
        "",
    ),
    Fault(
        "a ledger check that died is shown as if it ran on",
        "credits/verification.py",
        "if row.state == _State.RUNNING and not locks.is_held(LOCK):",
        "if False:",
        "tests/credits/test_verification.py tests/credits/test_admin_verification.py",
    ),
    Fault(
        "a ledger check counts as proven before it has compared",
        "credits/models.py",
        "state = models.CharField(max_length=10, choices=State, default=State.RUNNING)",
        "state = models.CharField(max_length=10, choices=State, default=State.PROVEN)",
        "tests/credits/test_verification.py",
    ),
    Fault(
        "a difference that was found counts as proven",
        "credits/verification.py",
        "if result.differences:",
        "if result.differences and result.repaired:",
        "tests/credits/test_verification.py",
    ),
    Fault(
        "two ledger checks run at a time",
        "credits/verification.py",
        "with locks.advisory_lock(LOCK, wait_s=0):",
        "with locks.advisory_lock(f'{LOCK}{now}', wait_s=0):",
        "tests/credits/test_verification.py",
    ),
    Fault(
        "a refund passes what was charged",
        "credits/refunds.py",
        "if not 1 <= wanted <= rest:",
        "if wanted < 1:",
        "tests/credits/test_refunds.py",
    ),
    Fault(
        "a refund forgets what was returned before",
        "credits/refunds.py",
        "part = min(amount, draw.amount - returned)",
        "part = min(amount, draw.amount)",
        "tests/credits/test_refunds.py",
    ),
    Fault(
        "a refund sent twice is booked twice",
        "credits/refunds.py",
        "    if wanted.external_id is not None and (known :=",
        "    wanted.external_id = None\n    if wanted.external_id is not None and (known :=",
        "tests/credits/test_refunds.py",
    ),
    Fault(
        "a refund goes into a grant that has ended",
        "credits/refunds.py",
        "return not has_ended and (",
        "return True or (",
        "tests/credits/test_refunds.py",
    ),
    Fault(
        "a scheduled grant counts before its time",
        "credits/services.py",
        "    if wanted.effective_at <= now:",
        "    if True:",
        "tests/credits/test_scheduled_grants.py",
    ),
    Fault(
        "two drains enter a scheduled grant twice",
        "credits/services.py",
        "scheduled = CreditGrant.objects.filter(pk=grant.pk, entered_at=None, voided_at=None).first()",
        "scheduled = CreditGrant.objects.filter(pk=grant.pk).first()",
        "tests/credits/test_scheduled_grants.py",
    ),
    Fault(
        "a deduction sent twice is taken twice",
        "credits/decreases.py",
        "    if wanted.external_id is None:\n        return None",
        "    wanted.external_id = None\n    if wanted.external_id is None:\n        return None",
        "tests/credits/test_grant_commands.py",
    ),
    Fault(
        "a balance that is set twice is computed twice",
        "credits/adjustments.py",
        "if unique and (before := _set_before(account, unique)):",
        "if False:",
        "tests/credits/test_admin_money.py",
    ),
    Fault(
        "a balance is set without what Redis has still to learn",
        "credits/adjustments.py",
        "    loading.apply_commands(account.pk)\n",
        "",
        "tests/credits/test_admin_money.py",
    ),
    Fault(
        "a promo is spent no sooner than a purchase",
        "credits/grants.py",
        '            grant.kind != "promo",\n',
        "",
        "tests/credits/test_grants.py",
    ),
    Fault(
        "a request costs more than its max_credits",
        "search/query/request.py",
        "return limit if max_credits is None else min(limit, affordable(max_credits))",
        "return limit",
        "tests/search/test_max_credits.py",
    ),
    Fault(
        "lag is measured at the other consumer's cursor",
        "credits/lua/lag.lua",
        "return {age(redis.call('GET', KEYS[2])), age(redis.call('GET', KEYS[3])),",
        "return {age(redis.call('GET', KEYS[3])), age(redis.call('GET', KEYS[2])),",
        "tests/credits/test_drain_figures.py",
    ),
    Fault(
        "lag counts the event that was read already",
        "credits/lua/lag.lua",
        "local start = cursor and '(' .. cursor or '-'",
        "local start = cursor or '-'",
        "tests/credits/test_drain_figures.py",
    ),
    Fault(
        "metrics are open without their token",
        "credits/metrics.py",
        'if hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected):',
        "if given is not None:",
        "tests/credits/test_metrics.py",
    ),
]


def plant(fault: Fault, folder: Path) -> tuple[Path, str]:
    """Writes the fault into the copy; (file, its sound text). Raises ValueError when the guard is not there once."""
    path = folder / fault.path
    sound = path.read_text()
    if sound.count(fault.guard) != 1:
        raise ValueError(f"'{fault.name}': its guard stands {sound.count(fault.guard)} times in {fault.path}")
    path.write_text(sound.replace(fault.guard, fault.broken))
    return path, sound


def is_caught(fault: Fault, folder: Path) -> bool:
    """Whether the fault's tests turn red in the copy."""
    path, sound = plant(fault, folder)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider"),
                *("-m", "not browser and not machine and not cluster and not long"),
                *fault.tests.split(),
            ],
            cwd=folder,
            env={**os.environ, "SHRINK": "0"},
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        path.write_text(sound)
    # 1 is "some tests failed"; anything else that is not 0 means they did not run.
    if done.returncode not in (0, 1):
        raise RuntimeError(f"'{fault.name}': the tests did not run\n{done.stdout.decode()[-2000:]}")
    return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="Only faults whose name contains this, e.g. --only cursor.")
    chosen = [fault for fault in FAULTS if parser.parse_args().only in fault.name]
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mh-faults-") as name:
        folder = Path(name)
        for part in COPIED:
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("manage.py", "pyproject.toml"):
            shutil.copy(ROOT / part, folder / part)
        for number, fault in enumerate(chosen, start=1):
            started = time.monotonic()
            caught = is_caught(fault, folder)
            if not caught:
                survivors.append(fault.name)
            verdict = "caught  " if caught else "SURVIVED"
            print(f"{number:3}/{len(chosen)} {verdict} {time.monotonic() - started:5.1f} s  {fault.name}", flush=True)
    print(f"{len(chosen) - len(survivors)} faults caught, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
