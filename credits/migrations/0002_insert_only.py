"""The ledger, its draws and the events set aside are inserted into and nothing else, whoever connects."""

from django.db import migrations

TABLES = ("credits_credittransaction", "credits_grantdraw", "credits_setaside")

FORWARD = """
CREATE FUNCTION credits_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is insert-only: correct it with a reversing entry', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
""" + "".join(
    f"""
CREATE TRIGGER {table}_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION credits_refuse_change();
"""
    for table in TABLES
)
BACKWARD = "".join(f"DROP TRIGGER {table}_insert_only ON {table};" for table in TABLES) + (
    "DROP FUNCTION credits_refuse_change();"
)


class Migration(migrations.Migration):
    dependencies = [("credits", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
