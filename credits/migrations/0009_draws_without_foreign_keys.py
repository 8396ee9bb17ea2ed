"""A draw is checked by who writes it: the three foreign key checks of each debit cost Postgres more than writing it.

Draws are written with their entry, in one transaction that holds the account's lock and has read its grants; entries and
grants are never deleted (triggers), so nothing a draw names can go away. `verify_ledger` proves both sums.
"""

import django.db.models.deletion
from django.db import migrations, models

KEPT = """
CREATE FUNCTION credits_refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% keeps every row: void the grant instead', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER credits_creditgrant_kept BEFORE DELETE OR TRUNCATE ON credits_creditgrant
    FOR EACH STATEMENT EXECUTE FUNCTION credits_refuse_delete();
"""
FREE = "DROP TRIGGER credits_creditgrant_kept ON credits_creditgrant; DROP FUNCTION credits_refuse_delete();"


class Migration(migrations.Migration):
    dependencies = [("credits", "0008_reserve")]
    operations = [
        migrations.RunSQL(KEPT, FREE),
        migrations.AlterField(
            model_name="grantdraw",
            name="entry",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="draws",
                to="credits.credittransaction",
            ),
        ),
        migrations.AlterField(
            model_name="grantdraw",
            name="grant",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="draws",
                to="credits.creditgrant",
            ),
        ),
    ]
