BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE attempts (
	job_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	probe BOOLEAN NOT NULL, 
	claimed_at DATETIME NOT NULL, 
	signed_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	answered_at DATETIME, 
	code TEXT, 
	reaction TEXT, 
	effect TEXT, 
	message TEXT, 
	http_status INTEGER, 
	request_id TEXT, 
	task_id TEXT, 
	CONSTRAINT pk_attempts PRIMARY KEY (job_id, number), 
	CONSTRAINT fk_attempts_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "attempts" VALUES(1,1,'machine-20027-a3708f58',0,'2026-11-28 10:09:00.389180','2026-11-28 10:09:00.383005','2026-11-28 10:09:45.389180','2026-11-28 10:09:00.419662','Client.Accepted','accept','yes','',200,'78e51061-7311-48a3-82ce-6f447ed4d57b','118034063');
INSERT INTO "attempts" VALUES(2,1,'machine-20027-a3708f58',0,'2026-11-28 10:09:00.454303','2026-11-28 10:09:00.422118','2026-11-28 10:09:45.454303','2026-11-28 10:09:00.566163','InvalidImageId.NotFound','fail','no','The image ID `img-00000002` does not exist.',200,'35bf992d-c9e9-4616-a12e-7696a6cecc1b',NULL);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	job_id INTEGER, 
	at DATETIME NOT NULL, 
	kind TEXT NOT NULL, 
	from_state TEXT, 
	to_state TEXT, 
	attempt INTEGER, 
	actor TEXT NOT NULL, 
	details JSON NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (id), 
	CONSTRAINT fk_events_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "events" VALUES(1,1,'2026-11-28 10:08:57.975994','enqueued',NULL,'queued',NULL,'enqueue-20001','{"batch": "first"}');
INSERT INTO "events" VALUES(2,2,'2026-11-28 10:08:57.975994','enqueued',NULL,'queued',NULL,'enqueue-20001','{"batch": "first"}');
INSERT INTO "events" VALUES(3,1,'2026-11-28 10:09:00.389180','claimed','queued','sending',1,'machine-20027-a3708f58','{}');
INSERT INTO "events" VALUES(4,1,'2026-11-28 10:09:00.419662','accepted','sending','accepted',1,'machine-20027-a3708f58','{"task_id": "118034063", "request_id": "78e51061-7311-48a3-82ce-6f447ed4d57b"}');
INSERT INTO "events" VALUES(5,2,'2026-11-28 10:09:00.454303','claimed','queued','sending',1,'machine-20027-a3708f58','{}');
INSERT INTO "events" VALUES(6,2,'2026-11-28 10:09:00.566163','failed','sending','failed',1,'machine-20027-a3708f58','{"request_id": "35bf992d-c9e9-4616-a12e-7696a6cecc1b", "code": "InvalidImageId.NotFound", "message": "The image ID `img-00000002` does not exist."}');
INSERT INTO "events" VALUES(7,1,'2026-11-28 10:09:00.822211','verified','accepted','verified',1,'machine-20027-a3708f58','{"objects": [{"key": "mu3wvg7uryy4_img-00000001_data_snap-lfwnrl3r.raw", "size": 107374182400, "etag": "7334a0ed1ad52b88d2be3b148a0586a2-1600", "crc64": "14114775207504819191"}, {"key": "mu3wvg7uryy4_img-00000001_system_snap-s5u18913.raw", "size": 53687091200, "etag": "5cca06940ef88e944739a2f055b8148e-800", "crc64": "13859449699474126376"}], "suspect": []}');
INSERT INTO "events" VALUES(8,3,'2026-11-28 10:09:02.986892','enqueued',NULL,'queued',NULL,'enqueue-20121','{"batch": "second"}');
INSERT INTO "events" VALUES(9,4,'2026-11-28 10:09:02.986892','enqueued',NULL,'queued',NULL,'enqueue-20121','{"batch": "second"}');
CREATE TABLE instances (
	id TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	started_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	CONSTRAINT pk_instances PRIMARY KEY (id)
);
INSERT INTO "instances" VALUES('machine-20027-a3708f58','machine 00000000-0000-0000-0000-000000000000 pid:[1]',20027,'2026-11-28 10:09:00.042071','2026-11-28 10:09:00.956377');
CREATE TABLE job_images (
	job_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	image_id TEXT NOT NULL, 
	state TEXT, 
	CONSTRAINT pk_job_images PRIMARY KEY (job_id, position), 
	CONSTRAINT fk_job_images_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "job_images" VALUES(1,0,'img-00000001','NORMAL');
INSERT INTO "job_images" VALUES(2,0,'img-00000002',NULL);
INSERT INTO "job_images" VALUES(3,0,'img-00000003',NULL);
INSERT INTO "job_images" VALUES(4,0,'img-00000004',NULL);
CREATE TABLE jobs (
	id INTEGER NOT NULL, 
	tag TEXT NOT NULL, 
	object_prefix TEXT NOT NULL, 
	batch TEXT NOT NULL, 
	profile TEXT NOT NULL, 
	region TEXT NOT NULL, 
	bucket TEXT NOT NULL, 
	format TEXT NOT NULL, 
	prefix TEXT NOT NULL, 
	exact_names BOOLEAN NOT NULL, 
	only_root_disk BOOLEAN NOT NULL, 
	role_name TEXT, 
	priority INTEGER NOT NULL, 
	image_ids JSON NOT NULL, 
	fingerprint TEXT NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	due_at DATETIME NOT NULL, 
	described_at DATETIME, 
	size_gib INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	spent INTEGER NOT NULL, 
	waits INTEGER NOT NULL, 
	owner TEXT, 
	expires_at DATETIME, 
	doubted BOOLEAN NOT NULL, 
	clean_since DATETIME, 
	fenced_until DATETIME, 
	deadline_at DATETIME, 
	task_id TEXT, 
	request_id TEXT, 
	code TEXT, 
	message TEXT, 
	remedy TEXT, 
	created_at DATETIME NOT NULL, 
	sent_at DATETIME, 
	accepted_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_jobs PRIMARY KEY (id), 
	CONSTRAINT ck_jobs_owner CHECK ((state = 'sending') = (owner IS NOT NULL)), 
	CONSTRAINT ck_jobs_format CHECK (format IN ('RAW', 'QCOW2', 'VHD', 'VMDK')), 
	CONSTRAINT ck_jobs_state CHECK (state IN ('queued', 'sending', 'unknown', 'accepted', 'verified', 'failed', 'cancelled')), 
	CONSTRAINT uq_jobs_tag UNIQUE (tag)
);
INSERT INTO "jobs" VALUES(1,'mu3wvg7uryy4','mu3wvg7uryy4','first','default','ap-singapore','backup-1250000000','RAW','',0,0,NULL,0,'["img-00000001"]','02ace4f9087221d369bc6d3743de8f957a73b4c362c3a3df454b6626483a876f','verified','seen in the bucket','2026-11-28 10:09:00.992796','2026-11-28 10:09:00.374640',150,1,1,0,NULL,NULL,0,NULL,NULL,'2026-11-29 10:09:00.419662','118034063','78e51061-7311-48a3-82ce-6f447ed4d57b',NULL,NULL,NULL,'2026-11-28 10:08:57.975994','2026-11-28 10:09:00.389180','2026-11-28 10:09:00.419662','2026-11-28 10:09:00.822211');
INSERT INTO "jobs" VALUES(2,'jazoo34aj2st','jazoo34aj2st','first','default','ap-singapore','backup-1250000000','RAW','',0,0,NULL,0,'["img-00000002"]','191bb200e8f79444fbdbfc06107d13dd6b28ff2efc014b98cf91b645168c3e08','failed','refused','2026-11-28 10:09:00.566163','2026-11-28 10:09:00.374640',0,1,1,0,NULL,NULL,0,NULL,NULL,NULL,NULL,'35bf992d-c9e9-4616-a12e-7696a6cecc1b','InvalidImageId.NotFound','The image ID `img-00000002` does not exist.','Check the image id and --region: this account has no such image there.','2026-11-28 10:08:57.975994','2026-11-28 10:09:00.454303',NULL,'2026-11-28 10:09:00.566163');
INSERT INTO "jobs" VALUES(3,'urxvbxw7dowz','nightly-urxvbxw7dowz','second','default','ap-singapore','backup-1250000000','RAW','nightly',0,0,NULL,0,'["img-00000003"]','ec1434469fd44990bae026776ea62296f0003fbdb1f3397f3019b9be2229db1b','queued','new','2026-11-28 10:09:02.986892',NULL,0,0,0,0,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-28 10:09:02.986892',NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(4,'5d3763xyherx','5d3763xyherx','second','default','ap-tokyo','backup-1250000000','RAW','',0,0,NULL,0,'["img-00000004"]','a2bceb85abb5f42afc96dee205a45f6c772359a01a31c37e67ff0b3bde3d5dab','queued','not before','2026-01-01 00:00:00.000000',NULL,0,0,0,0,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-28 10:09:02.986892',NULL,NULL,NULL);
CREATE TABLE objects (
	job_id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	expected BOOLEAN NOT NULL, 
	cos_path TEXT, 
	disk_gib INTEGER, 
	baseline_etag TEXT, 
	size BIGINT, 
	etag TEXT, 
	crc64 TEXT, 
	storage_class TEXT, 
	last_modified DATETIME, 
	seen_at DATETIME, 
	CONSTRAINT pk_objects PRIMARY KEY (job_id, "key"), 
	CONSTRAINT fk_objects_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "objects" VALUES(1,'mu3wvg7uryy4_img-00000001_system_snap-s5u18913.raw',1,'/mu3wvg7uryy4_img-00000001_system_snap-s5u18913.raw',50,NULL,53687091200,'5cca06940ef88e944739a2f055b8148e-800','13859449699474126376','STANDARD','2026-11-28 10:09:00.000000','2026-11-28 10:09:00.822211');
INSERT INTO "objects" VALUES(1,'mu3wvg7uryy4_img-00000001_data_snap-lfwnrl3r.raw',1,'/mu3wvg7uryy4_img-00000001_data_snap-lfwnrl3r.raw',100,NULL,107374182400,'7334a0ed1ad52b88d2be3b148a0586a2-1600','14114775207504819191','STANDARD','2026-11-28 10:09:00.000000','2026-11-28 10:09:00.822211');
CREATE TABLE scopes (
	profile TEXT NOT NULL, 
	region TEXT NOT NULL, 
	ceiling INTEGER, 
	misses INTEGER NOT NULL, 
	full_since DATETIME, 
	probe_at DATETIME, 
	probe_job INTEGER, 
	probe_until DATETIME, 
	CONSTRAINT pk_scopes PRIMARY KEY (profile, region)
);
INSERT INTO "scopes" VALUES('default','ap-singapore',NULL,0,NULL,NULL,NULL,NULL);
INSERT INTO "scopes" VALUES('default','ap-tokyo',NULL,0,NULL,NULL,NULL,NULL);
CREATE INDEX ix_jobs_claim ON jobs (state, profile, priority DESC, size_gib DESC, id);
CREATE INDEX ix_jobs_batch ON jobs (batch, state);
CREATE INDEX ix_jobs_due ON jobs (state, due_at);
CREATE INDEX ix_jobs_fingerprint ON jobs (fingerprint);
CREATE INDEX ix_jobs_scope ON jobs (state, profile, region);
CREATE INDEX ix_attempts_owner ON attempts (owner);
CREATE INDEX ix_events_job_id ON events (job_id);
CREATE INDEX ix_job_images_image_id ON job_images (image_id);
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
COMMIT;
