from typing import Any

from django.db import migrations, models


class AddIndex(migrations.AddIndex):
    """On PostgreSQL without holding up a worker: writes go on while the index is built.

    A build that was broken off leaves an index that nothing uses; doing it again begins with that.
    """

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        if schema_editor.connection.vendor != 'postgresql':
            return super().database_forwards(app_label, schema_editor, from_state, to_state)
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            schema_editor.remove_index(model, self.index, concurrently=True)
            schema_editor.add_index(model, self.index, concurrently=True)


class Migration(migrations.Migration):

    # An index can't be built beside writes within a transaction.
    atomic = False

    dependencies = [
        ('videojobs', '0005_link_generations_and_permit_acts'),
    ]

    operations = [
        AddIndex(
            model_name='videojob',
            index=models.Index(models.F('model'), models.F('created_at'), name='videojob_model'),
        ),
        AddIndex(
            model_name='videojob',
            index=models.Index(models.F('mirror_status'), models.F('created_at'), condition=models.Q(('mirror_status__in', ['due', 'failed', 'skipped', 'stored'])), name='videojob_mirror'),
        ),
        AddIndex(
            model_name='videojob',
            index=models.Index(models.F('created_at'), condition=models.Q(('status__in', ['unconfirmed', 'expired']), ('mirror_status', 'failed'), _connector='OR'), name='videojob_person'),
        ),
        AddIndex(
            model_name='jobevent',
            index=models.Index(models.F('created_at'), condition=models.Q(('kind', 'mirror'), ('new', 'failed')), name='jobevent_mirror_failed'),
        ),
        AddIndex(
            model_name='videojob',
            index=models.Index(models.F('finished_at'), models.F('status'), models.F('submitted_at'), condition=models.Q(('finished_at__isnull', False)), name='videojob_finished'),
        ),
        AddIndex(
            model_name='videojob',
            index=models.Index(models.F('mirrored_at'), models.F('output_size'), condition=models.Q(('mirror_status', 'stored')), name='videojob_stored'),
        ),
    ]
