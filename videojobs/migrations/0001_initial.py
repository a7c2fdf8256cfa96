
import django.core.serializers.json
import django.db.models.deletion
import django.utils.timezone
import uuid
import videojobs.mirror.destination
import videojobs.models.fields
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='QuotaLock',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('passed', models.PositiveBigIntegerField(default=0)),
            ],
            options={
                'verbose_name': 'spend guard',
                'verbose_name_plural': 'spend guard',
            },
        ),
        migrations.CreateModel(
            name='ProviderHold',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('account', videojobs.models.fields.ExactCharField(default='default', editable=False, max_length=100)),
                ('key_digest', models.CharField(editable=False, max_length=64)),
                ('scope', models.CharField(choices=[('everything', 'everything'), ('creates', 'create requests'), ('refusals', 'refused create requests')], max_length=10)),
                ('kind', models.CharField(choices=[('limited', 'rate limit'), ('rejected', 'key rejected'), ('setting', 'wrong setting'), ('unreachable', 'unreachable'), ('suspect', 'suspect'), ('failing', 'failing'), ('refused', 'requests refused')], max_length=11)),
                ('reason', models.TextField()),
                ('since', models.DateTimeField()),
                ('until', models.DateTimeField(help_text='When a trial call may be made.')),
                ('trial_until', models.DateTimeField(blank=True, editable=False, null=True)),
                ('count', models.PositiveIntegerField(default=1, help_text='Consecutive refusals.')),
                ('reset_at', models.DateTimeField(blank=True, null=True)),
                ('refusal', models.CharField(blank=True, max_length=200)),
                ('requests', models.JSONField(blank=True, default=list)),
            ],
            options={
                'verbose_name': 'provider hold',
                'verbose_name_plural': 'provider holds',
                'constraints': [models.UniqueConstraint(fields=('account', 'key_digest', 'scope'), name='providerhold_account_key_scope')],
            },
        ),
        migrations.CreateModel(
            name='VideoJob',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('status', models.CharField(choices=[('pending', 'pending'), ('submitting', 'submitting'), ('unconfirmed', 'unconfirmed'), ('queued', 'queued'), ('processing', 'processing'), ('completed', 'completed'), ('failed', 'failed'), ('cancelled', 'cancelled'), ('expired', 'expired'), ('stopped', 'stopped')], default='pending', max_length=12, verbose_name='status')),
                ('mirror_status', models.CharField(choices=[('none', 'none'), ('due', 'due'), ('stored', 'stored'), ('failed', 'failed'), ('skipped', 'skipped')], default='none', max_length=8, verbose_name='mirror')),
                ('account', videojobs.models.fields.ExactCharField(default='default', editable=False, max_length=100, verbose_name='account')),
                ('provider_task_id', videojobs.models.fields.ExactCharField(blank=True, max_length=512, null=True, verbose_name='provider ID')),
                ('key', videojobs.models.fields.ExactCharField(blank=True, help_text='Idempotency key, chosen by the caller.', max_length=255, null=True, unique=True)),
                ('endpoint', models.CharField(max_length=500)),
                ('model', models.CharField(blank=True, max_length=100)),
                ('prompt', models.TextField(blank=True)),
                ('duration', models.PositiveIntegerField(blank=True, help_text='Requested length in seconds.', null=True)),
                ('params', models.JSONField(blank=True, default=dict)),
                ('metadata', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder, help_text='Data of the caller.')),
                ('due_at', models.DateTimeField(blank=True, null=True, verbose_name='next step')),
                ('turn', models.PositiveBigIntegerField(default=0, help_text='Fencing token: incremented by every change.')),
                ('claimed_until', models.DateTimeField(blank=True, null=True)),
                ('claim_token', models.UUIDField(blank=True, editable=False, null=True)),
                ('check_count', models.PositiveIntegerField(default=0, verbose_name='checks')),
                ('error_count', models.PositiveIntegerField(default=0, verbose_name='errors in a row')),
                ('mirror_attempts', models.PositiveIntegerField(default=0)),
                ('objection', models.CharField(blank=True, editable=False, max_length=64)),
                ('received_bytes', models.PositiveBigIntegerField(blank=True, editable=False, null=True)),
                ('announced_bytes', models.PositiveBigIntegerField(blank=True, editable=False, null=True)),
                ('video_url', models.TextField(blank=True, help_text='Temporary signed URL; never displayed.')),
                ('actual_duration', models.FloatField(blank=True, help_text='Seconds.', null=True)),
                ('error', models.TextField(blank=True)),
                ('output', models.FileField(blank=True, max_length=255, storage=videojobs.mirror.destination.output_storage, upload_to='')),
                ('output_size', models.PositiveBigIntegerField(blank=True, help_text='Bytes.', null=True)),
                ('output_sha256', models.CharField(blank=True, max_length=64, verbose_name='SHA-256')),
                ('content_type', models.CharField(blank=True, max_length=100)),
                ('output_width', models.PositiveIntegerField(blank=True, help_text='Pixels.', null=True)),
                ('output_height', models.PositiveIntegerField(blank=True, help_text='Pixels.', null=True)),
                ('output_codec', models.CharField(blank=True, max_length=32)),
                ('output_duration', models.FloatField(blank=True, help_text='Seconds.', null=True)),
                ('poster', models.FileField(blank=True, max_length=255, storage=videojobs.mirror.destination.output_storage, upload_to='')),
                ('unchecked', models.BooleanField(default=False, editable=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('submitted_at', models.DateTimeField(blank=True, null=True)),
                ('last_checked_at', models.DateTimeField(blank=True, null=True)),
                ('deadline_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('mirrored_at', models.DateTimeField(blank=True, null=True)),
                ('regenerated_from', models.ForeignKey(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='regenerated_as', to='videojobs.videojob', verbose_name='regenerated from')),
            ],
            options={
                'verbose_name': 'video job',
                'verbose_name_plural': 'video jobs',
                'ordering': ['-created_at'],
                'permissions': [('check_videojob', 'Can check a job now'), ('stop_videojob', 'Can stop tracking a job'), ('resume_videojob', 'Can resume tracking a job'), ('resolve_videojob', 'Can resolve an unconfirmed submission'), ('mirror_videojob', 'Can download an output again'), ('regenerate_videojob', 'Can regenerate a job (billed)')],
            },
        ),
        migrations.CreateModel(
            name='JobEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('status', 'status'), ('mirror', 'mirror'), ('note', 'note'), ('download', 'download'), ('regenerated', 'regenerated'), ('overdue', 'overdue')], max_length=12)),
                ('old', models.CharField(blank=True, max_length=12)),
                ('new', models.CharField(max_length=12)),
                ('reason', models.TextField(blank=True)),
                ('answer', models.TextField(blank=True)),
                ('found_ids', models.JSONField(blank=True, default=list, editable=False)),
                ('actor', videojobs.models.fields.TruncatedCharField(blank=True, help_text='The user or program that requested it; empty for the app itself.', max_length=150)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('signal_due_at', models.DateTimeField(blank=True, editable=False, null=True)),
                ('job', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='events', to='videojobs.videojob')),
            ],
            options={
                'verbose_name': 'job event',
                'verbose_name_plural': 'job events',
                'ordering': ['created_at', 'pk'],
            },
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index(condition=models.Q(('due_at__isnull', False)), fields=['due_at'], name='videojob_due'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index('due_at', condition=models.Q(('status', 'processing'), ('status', 'queued'), _connector='OR'), name='videojob_poll_due'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index('due_at', condition=models.Q(('status', 'pending')), name='videojob_submit_due'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index('due_at', condition=models.Q(('mirror_status', 'due')), name='videojob_mirror_due'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index('due_at', condition=models.Q(('status', 'submitting')), name='videojob_submitting'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index(fields=['created_at'], name='videojob_created'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index(fields=['status', 'created_at'], name='videojob_status'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['finished_at', 'status', 'submitted_at'], name='videojob_finished'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index(condition=models.Q(('mirror_status', 'stored')), fields=['mirrored_at', 'output_size'], name='videojob_stored'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index(fields=['provider_task_id'], name='videojob_task', opclasses=['varchar_pattern_ops']),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index(fields=['model', 'created_at'], name='videojob_model'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index(condition=models.Q(('mirror_status__in', ['due', 'failed', 'skipped', 'stored'])), fields=['mirror_status', 'created_at'], name='videojob_mirror'),
        ),
        migrations.AddIndex(
            model_name='videojob',
            index=models.Index('created_at', condition=models.Q(('status__in', ['unconfirmed', 'expired']), ('mirror_status', 'failed'), _connector='OR'), name='videojob_person'),
        ),
        migrations.AddConstraint(
            model_name='videojob',
            constraint=models.UniqueConstraint(fields=('account', 'provider_task_id'), name='videojob_account_task'),
        ),
        migrations.AddConstraint(
            model_name='videojob',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['cancelled', 'completed', 'expired', 'failed', 'stopped', 'unconfirmed']), ('due_at__isnull', False), _connector='OR'), name='videojob_unfinished_has_a_next_step'),
        ),
        migrations.AddConstraint(
            model_name='videojob',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('status__in', ['cancelled', 'completed', 'expired', 'failed', 'stopped', 'unconfirmed']), _negated=True), ('mirror_status', 'due'), ('due_at__isnull', True), _connector='OR'), name='videojob_finished_has_no_next_step'),
        ),
        migrations.AddConstraint(
            model_name='videojob',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('status__in', ['processing', 'queued']), _negated=True), ('provider_task_id__isnull', False), _connector='OR'), name='videojob_polled_has_a_task'),
        ),
        migrations.AddConstraint(
            model_name='videojob',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('mirror_status', 'due'), _negated=True), models.Q(('due_at__isnull', False), ('status', 'completed')), _connector='OR'), name='videojob_mirror_due_has_a_next_step'),
        ),
        migrations.AddConstraint(
            model_name='videojob',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('mirror_status', 'stored'), _negated=True), models.Q(('output__gt', ''), ('output_sha256__gt', ''), ('output_size__gt', 0), ('output_size__isnull', False)), _connector='OR'), name='videojob_stored_has_a_checked_file'),
        ),
        migrations.AddIndex(
            model_name='jobevent',
            index=models.Index(fields=['job', 'created_at'], name='jobevent_job_created'),
        ),
        migrations.AddIndex(
            model_name='jobevent',
            index=models.Index(condition=models.Q(('signal_due_at__isnull', False)), fields=['signal_due_at'], name='jobevent_unsent'),
        ),
        migrations.AddIndex(
            model_name='jobevent',
            index=models.Index(condition=models.Q(('kind', 'mirror'), ('new', 'failed')), fields=['created_at'], name='jobevent_mirror_failed'),
        ),
    ]
