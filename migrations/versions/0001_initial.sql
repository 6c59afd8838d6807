-- The schema as it was first published. Frozen.

CREATE TABLE inbox.pair (
	lease_id BIGINT NOT NULL, 
	worker name DEFAULT session_user NOT NULL, 
	ordinal INTEGER NOT NULL, 
	url_key UUID NOT NULL, 
	url TEXT NOT NULL, 
	text TEXT NOT NULL, 
	language TEXT, 
	language_probability REAL NOT NULL, 
	license TEXT
);

CREATE INDEX pair_lease_id_idx ON inbox.pair (lease_id);

COMMENT ON TABLE inbox.pair IS 'Extracted links, from the COPY of an extract worker until the merge.';

COMMENT ON COLUMN inbox.pair.lease_id IS 'The lease under which it was sent';

COMMENT ON COLUMN inbox.pair.worker IS 'The sender; filled in by the server, workers have no right to write it';

COMMENT ON COLUMN inbox.pair.ordinal IS 'Order within the WAT file, from 0: of equal URLs the first is kept';

COMMENT ON COLUMN inbox.pair.url_key IS 'As pair.url_key';

COMMENT ON COLUMN inbox.pair.url IS 'As pair.url';

COMMENT ON COLUMN inbox.pair.text IS 'As pair.text';

COMMENT ON COLUMN inbox.pair.language IS 'As pair.language';

COMMENT ON COLUMN inbox.pair.language_probability IS 'As pair.language_probability';

COMMENT ON COLUMN inbox.pair.license IS 'As pair.license';

CREATE TABLE inbox.score (
	lease_id BIGINT NOT NULL, 
	worker name DEFAULT session_user NOT NULL, 
	part INTEGER NOT NULL, 
	n INTEGER NOT NULL, 
	outcome SMALLINT NOT NULL, 
	similarity REAL, 
	image BYTEA, 
	text BYTEA
);

CREATE INDEX score_lease_id_part_idx ON inbox.score (lease_id, part);

COMMENT ON TABLE inbox.score IS 'Scores and embeddings, from the COPY of a score worker until acceptance.';

COMMENT ON COLUMN inbox.score.lease_id IS 'The lease under which it was sent';

COMMENT ON COLUMN inbox.score.worker IS 'The sender; filled in by the server, workers have no right to write it';

COMMENT ON COLUMN inbox.score.part IS 'The part of the submission';

COMMENT ON COLUMN inbox.score.n IS 'As score.n';

COMMENT ON COLUMN inbox.score.outcome IS 'As score.outcome';

COMMENT ON COLUMN inbox.score.similarity IS 'As score.similarity';

COMMENT ON COLUMN inbox.score.image IS 'As embedding.image; null unless scored';

COMMENT ON COLUMN inbox.score.text IS 'As embedding.text; null unless scored';

CREATE UNLOGGED TABLE mill.merge_row (
	bucket SMALLINT NOT NULL, 
	place INTEGER NOT NULL, 
	url_key UUID NOT NULL, 
	url TEXT NOT NULL, 
	text TEXT NOT NULL, 
	language TEXT, 
	language_probability REAL NOT NULL, 
	license TEXT
);

COMMENT ON TABLE mill.merge_row IS 'The merge''s scratch: the new URLs of the extraction that is being accepted.';

COMMENT ON COLUMN mill.merge_row.bucket IS 'Which open batch it is dealt to';

COMMENT ON COLUMN mill.merge_row.place IS 'Its place among the new rows of its bucket, from 0';

COMMENT ON COLUMN mill.merge_row.url_key IS 'As inbox.pair.url_key';

COMMENT ON COLUMN mill.merge_row.url IS 'As inbox.pair.url';

COMMENT ON COLUMN mill.merge_row.text IS 'As inbox.pair.text';

COMMENT ON COLUMN mill.merge_row.language IS 'As inbox.pair.language';

COMMENT ON COLUMN mill.merge_row.language_probability IS 'As inbox.pair.language_probability';

COMMENT ON COLUMN mill.merge_row.license IS 'As inbox.pair.license';

CREATE TABLE mill.setting (
	only_row INTEGER NOT NULL CONSTRAINT setting_only_row_check CHECK (only_row = 1), 
	epoch INTEGER DEFAULT '1' NOT NULL, 
	min_protocol INTEGER DEFAULT '1' NOT NULL, 
	lease_seconds INTEGER DEFAULT '120' NOT NULL, 
	lease_max_seconds INTEGER DEFAULT '21600' NOT NULL, 
	leases_per_worker INTEGER DEFAULT '64' NOT NULL, 
	max_tries SMALLINT DEFAULT '5' NOT NULL, 
	retry_seconds INTEGER DEFAULT '30' NOT NULL, 
	batch_size INTEGER DEFAULT '10000' NOT NULL CONSTRAINT setting_batch_size_check CHECK (batch_size between 1 and 16384), 
	open_batches_max SMALLINT DEFAULT '32' NOT NULL CONSTRAINT setting_open_batches_max_check CHECK (open_batches_max between 1 and 256), 
	batch_open_seconds INTEGER DEFAULT '21600' NOT NULL, 
	pairs_per_wat INTEGER DEFAULT '29000' NOT NULL, 
	batches_per_slot INTEGER DEFAULT '64' NOT NULL, 
	parked_hold_seconds INTEGER DEFAULT '86400' NOT NULL, 
	thumbnail_max_bytes INTEGER DEFAULT '131072' NOT NULL, 
	CONSTRAINT setting_pkey PRIMARY KEY (only_row)
);

COMMENT ON TABLE mill.setting IS 'One row: what an admin may tune. Change it with UPDATE; it is read at every call.';

COMMENT ON COLUMN mill.setting.only_row IS 'Always 1';

COMMENT ON COLUMN mill.setting.epoch IS 'Upper part of every lease number; raised after a restore, so that no number returns';

COMMENT ON COLUMN mill.setting.min_protocol IS 'Workers that speak an older protocol are told to upgrade';

COMMENT ON COLUMN mill.setting.lease_seconds IS 'A lease without a heartbeat for this long is late';

COMMENT ON COLUMN mill.setting.lease_max_seconds IS 'No lease outlives this, whatever its heartbeats';

COMMENT ON COLUMN mill.setting.leases_per_worker IS 'Live leases that one login may hold';

COMMENT ON COLUMN mill.setting.max_tries IS 'A task that failed or was lost this often is parked';

COMMENT ON COLUMN mill.setting.retry_seconds IS 'Back-off after the first failure; doubles with each further one';

COMMENT ON COLUMN mill.setting.batch_size IS 'Pairs in a full batch, at most 16,384 (14 bits of the sample id)';

COMMENT ON COLUMN mill.setting.open_batches_max IS 'New pairs are dealt over at most this many open batches';

COMMENT ON COLUMN mill.setting.batch_open_seconds IS 'A batch open for longer is closed although not full';

COMMENT ON COLUMN mill.setting.pairs_per_wat IS 'New pairs expected of a WAT file before any is measured (LAION''s average)';

COMMENT ON COLUMN mill.setting.batches_per_slot IS 'Batches whose thumbnails share a slot of the ring';

COMMENT ON COLUMN mill.setting.parked_hold_seconds IS 'A parked score task keeps its thumbnails this long';

COMMENT ON COLUMN mill.setting.thumbnail_max_bytes IS 'A larger thumbnail is refused';

CREATE TABLE mill.outcome (
	code SMALLINT NOT NULL, 
	name TEXT NOT NULL, 
	CONSTRAINT outcome_pkey PRIMARY KEY (code), 
	CONSTRAINT outcome_name_key UNIQUE (name)
);

COMMENT ON TABLE mill.outcome IS 'The closed list of how a download ends.';

COMMENT ON COLUMN mill.outcome.code IS 'Stored in download.outcome; 0 is success';

COMMENT ON COLUMN mill.outcome.name IS 'The name that views and commands show';

CREATE TABLE mill.score_outcome (
	code SMALLINT NOT NULL, 
	name TEXT NOT NULL, 
	CONSTRAINT score_outcome_pkey PRIMARY KEY (code), 
	CONSTRAINT score_outcome_name_key UNIQUE (name)
);

COMMENT ON TABLE mill.score_outcome IS 'The closed list of how a scoring ends.';

COMMENT ON COLUMN mill.score_outcome.code IS 'Stored in score.outcome; 0 is scored';

COMMENT ON COLUMN mill.score_outcome.name IS 'The name that views and commands show';

CREATE TABLE mill.drop_reason (
	name TEXT NOT NULL, 
	CONSTRAINT drop_reason_pkey PRIMARY KEY (name)
);

COMMENT ON TABLE mill.drop_reason IS 'The closed list of why a link became no pair.';

COMMENT ON COLUMN mill.drop_reason.name IS 'The reason, as in wat_count.name';

CREATE TABLE mill.removal (
	removal_id BIGINT GENERATED ALWAYS AS IDENTITY, 
	source TEXT NOT NULL, 
	md5 UUID, 
	sha256 BYTEA, 
	reason TEXT NOT NULL, 
	added_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	CONSTRAINT removal_pkey PRIMARY KEY (removal_id), 
	CONSTRAINT removal_key_check CHECK ((md5 is null) <> (sha256 is null)), 
	CONSTRAINT removal_source_key UNIQUE (source)
);

CREATE INDEX removal_sha256_idx ON mill.removal (sha256);

CREATE INDEX removal_md5_idx ON mill.removal (md5);

COMMENT ON TABLE mill.removal IS 'What no release may contain, and no ingest may let in.';

COMMENT ON COLUMN mill.removal.removal_id IS 'Key';

COMMENT ON COLUMN mill.removal.source IS 'The URL or hash as it was given';

COMMENT ON COLUMN mill.removal.md5 IS 'md5 of a URL, or of an image''s bytes; matches either';

COMMENT ON COLUMN mill.removal.sha256 IS 'sha256 of an image''s bytes';

COMMENT ON COLUMN mill.removal.reason IS 'Why, in the admin''s words; may be empty';

COMMENT ON COLUMN mill.removal.added_at IS 'When it was added';

CREATE TABLE mill.pair (
	batch_id BIGINT NOT NULL, 
	n INTEGER NOT NULL, 
	wat_id BIGINT NOT NULL, 
	submission_id BIGINT NOT NULL, 
	url_key UUID NOT NULL, 
	url TEXT NOT NULL, 
	text TEXT NOT NULL, 
	language TEXT, 
	language_probability REAL NOT NULL, 
	license TEXT, 
	CONSTRAINT pair_pkey PRIMARY KEY (batch_id, n)
)
 PARTITION BY RANGE (batch_id);

COMMENT ON TABLE mill.pair IS 'A URL with its alt text, the first time that the URL was seen.';

COMMENT ON COLUMN mill.pair.batch_id IS 'The batch';

COMMENT ON COLUMN mill.pair.n IS 'Position within the batch, from 0';

COMMENT ON COLUMN mill.pair.wat_id IS 'The WAT file that it came from';

COMMENT ON COLUMN mill.pair.submission_id IS 'The extraction that it came with';

COMMENT ON COLUMN mill.pair.url_key IS 'md5 of the URL (UTF-8, without a fragment)';

COMMENT ON COLUMN mill.pair.url IS 'Absolute, http or https, at most 2,048 characters, without a fragment';

COMMENT ON COLUMN mill.pair.text IS 'The cleaned alt text, 5 to 2,000 characters';

COMMENT ON COLUMN mill.pair.language IS 'CLD3''s language where it is reliable, else null (nolang)';

COMMENT ON COLUMN mill.pair.language_probability IS 'CLD3''s probability of its best guess, 0 to 1';

COMMENT ON COLUMN mill.pair.license IS 'A licence link of the page, before or after the image; null where there is none';

CREATE TABLE mill.seen_url (
	url_key UUID NOT NULL, 
	batch_id BIGINT NOT NULL, 
	n INTEGER NOT NULL, 
	CONSTRAINT seen_url_pkey PRIMARY KEY (url_key)
)
 PARTITION BY HASH (url_key);

COMMENT ON TABLE mill.seen_url IS 'Which URLs are known, and where: decides who was first, and finds the row of a takedown.';

COMMENT ON COLUMN mill.seen_url.url_key IS 'md5 of the URL';

COMMENT ON COLUMN mill.seen_url.batch_id IS 'The batch of its pair';

COMMENT ON COLUMN mill.seen_url.n IS 'The position of its pair';

CREATE TABLE mill.download (
	batch_id BIGINT NOT NULL, 
	n INTEGER NOT NULL, 
	attempt SMALLINT NOT NULL, 
	outcome SMALLINT NOT NULL, 
	http_status SMALLINT, 
	bytes INTEGER, 
	width INTEGER, 
	height INTEGER, 
	md5 UUID, 
	sha256 BYTEA, 
	dhash BIGINT, 
	submission_id BIGINT NOT NULL, 
	CONSTRAINT download_pkey PRIMARY KEY (batch_id, n, attempt)
)
 PARTITION BY RANGE (batch_id);

COMMENT ON TABLE mill.download IS 'How the download of a pair''s URL ended.';

COMMENT ON COLUMN mill.download.batch_id IS 'The batch';

COMMENT ON COLUMN mill.download.n IS 'Position within the batch, from 0';

COMMENT ON COLUMN mill.download.attempt IS 'The download attempt, from 1; the highest that counts is current';

COMMENT ON COLUMN mill.download.outcome IS 'As outcome.code; 0 is success';

COMMENT ON COLUMN mill.download.http_status IS 'The last status that a server gave; null where none did';

COMMENT ON COLUMN mill.download.bytes IS 'Length of the body as received; null where there was none';

COMMENT ON COLUMN mill.download.width IS 'Pixels, of the original, as it is meant to be seen (EXIF orientation applied)';

COMMENT ON COLUMN mill.download.height IS 'Pixels, of the original, as it is meant to be seen';

COMMENT ON COLUMN mill.download.md5 IS 'md5 of the body';

COMMENT ON COLUMN mill.download.sha256 IS 'sha256 of the body, 32 bytes';

COMMENT ON COLUMN mill.download.dhash IS '64-bit difference hash of the image, as a signed integer';

COMMENT ON COLUMN mill.download.submission_id IS 'The submission that it came with';

CREATE TABLE mill.score (
	batch_id BIGINT NOT NULL, 
	n INTEGER NOT NULL, 
	attempt SMALLINT NOT NULL, 
	model_id INTEGER NOT NULL, 
	outcome SMALLINT NOT NULL, 
	similarity REAL, 
	submission_id BIGINT NOT NULL, 
	CONSTRAINT score_pkey PRIMARY KEY (batch_id, n, attempt, model_id, submission_id)
)
 PARTITION BY RANGE (batch_id);

COMMENT ON TABLE mill.score IS 'How well a downloaded image and its text match, by one model.';

COMMENT ON COLUMN mill.score.batch_id IS 'The batch';

COMMENT ON COLUMN mill.score.n IS 'Position within the batch, from 0';

COMMENT ON COLUMN mill.score.attempt IS 'The download attempt whose thumbnail was scored';

COMMENT ON COLUMN mill.score.model_id IS 'The model';

COMMENT ON COLUMN mill.score.outcome IS 'As score_outcome.code; 0 is scored';

COMMENT ON COLUMN mill.score.similarity IS 'Cosine similarity of image and text, -1 to 1; null unless scored';

COMMENT ON COLUMN mill.score.submission_id IS 'The submission that it came with';

CREATE TABLE mill.embedding (
	batch_id BIGINT NOT NULL, 
	n INTEGER NOT NULL, 
	attempt SMALLINT NOT NULL, 
	model_id INTEGER NOT NULL, 
	image BYTEA NOT NULL, 
	text BYTEA NOT NULL, 
	submission_id BIGINT NOT NULL, 
	CONSTRAINT embedding_pkey PRIMARY KEY (batch_id, n, attempt, model_id, submission_id)
)
 PARTITION BY RANGE (batch_id);

COMMENT ON TABLE mill.embedding IS 'The embeddings of a scored pair: float16, little-endian, L2-normalised, model.dims long.';

COMMENT ON COLUMN mill.embedding.batch_id IS 'The batch';

COMMENT ON COLUMN mill.embedding.n IS 'Position within the batch, from 0';

COMMENT ON COLUMN mill.embedding.attempt IS 'As score.attempt';

COMMENT ON COLUMN mill.embedding.model_id IS 'The model';

COMMENT ON COLUMN mill.embedding.image IS 'Of the thumbnail';

COMMENT ON COLUMN mill.embedding.text IS 'Of the alt text';

COMMENT ON COLUMN mill.embedding.submission_id IS 'The submission that it came with';

CREATE TABLE mill.thumbnail (
	slot SMALLINT NOT NULL, 
	batch_id BIGINT NOT NULL, 
	n INTEGER NOT NULL, 
	attempt SMALLINT NOT NULL, 
	submission_id BIGINT NOT NULL, 
	image BYTEA NOT NULL, 
	CONSTRAINT thumbnail_pkey PRIMARY KEY (slot, batch_id, n, attempt, submission_id)
)
 PARTITION BY LIST (slot);

COMMENT ON TABLE mill.thumbnail IS 'What the scorer sees. Written at submission, read once its submission is accepted, truncated by slot.';

COMMENT ON COLUMN mill.thumbnail.slot IS 'The slot of the ring';

COMMENT ON COLUMN mill.thumbnail.batch_id IS 'The batch';

COMMENT ON COLUMN mill.thumbnail.n IS 'Position within the batch, from 0';

COMMENT ON COLUMN mill.thumbnail.attempt IS 'The download attempt';

COMMENT ON COLUMN mill.thumbnail.submission_id IS 'The submission that it came with';

COMMENT ON COLUMN mill.thumbnail.image IS 'JPEG or WebP, short side 256 pixels at most';

CREATE TABLE mill.thumbnail_slot (
	slot SMALLINT NOT NULL, 
	state TEXT DEFAULT 'empty' NOT NULL CONSTRAINT thumbnail_slot_state_check CHECK (state in ('empty', 'filling', 'full')), 
	batches INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT thumbnail_slot_pkey PRIMARY KEY (slot)
);

COMMENT ON TABLE mill.thumbnail_slot IS 'The ring of thumbnail partitions. With no slot empty or filling, no download is claimed.';

COMMENT ON COLUMN mill.thumbnail_slot.slot IS 'Key; mill.thumbnail_s<slot> is its partition';

COMMENT ON COLUMN mill.thumbnail_slot.state IS 'empty, filling, or full (takes no further batch)';

COMMENT ON COLUMN mill.thumbnail_slot.batches IS 'Batches assigned to it since it was emptied';

CREATE TABLE mill.crawl (
	crawl_id INTEGER GENERATED ALWAYS AS IDENTITY, 
	name TEXT NOT NULL, 
	added_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	CONSTRAINT crawl_pkey PRIMARY KEY (crawl_id), 
	CONSTRAINT crawl_name_key UNIQUE (name)
);

COMMENT ON TABLE mill.crawl IS 'A Common Crawl crawl whose WAT files were added.';

COMMENT ON COLUMN mill.crawl.crawl_id IS 'Key';

COMMENT ON COLUMN mill.crawl.name IS 'CC-MAIN-YYYY-WW';

COMMENT ON COLUMN mill.crawl.added_at IS 'When it was added';

CREATE TABLE mill.wat_count (
	submission_id BIGINT NOT NULL, 
	wat_id BIGINT NOT NULL, 
	stage TEXT NOT NULL, 
	name TEXT NOT NULL, 
	count BIGINT NOT NULL, 
	CONSTRAINT wat_count_pkey PRIMARY KEY (submission_id, stage, name)
);

CREATE INDEX wat_count_wat_id_idx ON mill.wat_count (wat_id);

COMMENT ON TABLE mill.wat_count IS 'What an accepted extraction counted; the only place where links are counted.';

COMMENT ON COLUMN mill.wat_count.submission_id IS 'The extraction';

COMMENT ON COLUMN mill.wat_count.wat_id IS 'The WAT file';

COMMENT ON COLUMN mill.wat_count.stage IS 'records, links, bad_record, ended_early, dropped, duplicate or pair';

COMMENT ON COLUMN mill.wat_count.name IS 'Within the stage: a drop reason, a kind of bad record, a language; empty where there is one count';

COMMENT ON COLUMN mill.wat_count.count IS 'How many';

CREATE TABLE mill.worker (
	worker_id INTEGER GENERATED ALWAYS AS IDENTITY, 
	login name NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL CONSTRAINT worker_kind_check CHECK (kind in ('extract', 'download', 'score', 'steward')), 
	added_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	disabled_at TIMESTAMP WITH TIME ZONE, 
	CONSTRAINT worker_pkey PRIMARY KEY (worker_id), 
	CONSTRAINT worker_login_key UNIQUE (login), 
	CONSTRAINT worker_name_key UNIQUE (name)
);

COMMENT ON TABLE mill.worker IS 'A worker''s login. The login name is random, because pg_roles is public; the name is here.';

COMMENT ON COLUMN mill.worker.worker_id IS 'Key';

COMMENT ON COLUMN mill.worker.login IS 'The PostgreSQL role that it logs in as';

COMMENT ON COLUMN mill.worker.name IS 'What people call it';

COMMENT ON COLUMN mill.worker.kind IS 'What it may claim';

COMMENT ON COLUMN mill.worker.added_at IS 'When it was added';

COMMENT ON COLUMN mill.worker.disabled_at IS 'When it was disabled; null while it may work';

CREATE TABLE mill.model (
	model_id INTEGER GENERATED ALWAYS AS IDENTITY, 
	name TEXT NOT NULL, 
	pretrained TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	dims INTEGER NOT NULL, 
	active_since TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	CONSTRAINT model_pkey PRIMARY KEY (model_id), 
	CONSTRAINT model_digest_key UNIQUE (digest)
);

COMMENT ON TABLE mill.model IS 'A CLIP model that scores pairs.';

COMMENT ON COLUMN mill.model.model_id IS 'Key';

COMMENT ON COLUMN mill.model.name IS 'open_clip''s model name, or the folder of a model';

COMMENT ON COLUMN mill.model.pretrained IS 'open_clip''s tag or a checkpoint''s path; empty where name says it all';

COMMENT ON COLUMN mill.model.digest IS 'sha256 of the weights, hexadecimal';

COMMENT ON COLUMN mill.model.dims IS 'Length of an embedding';

COMMENT ON COLUMN mill.model.active_since IS 'New batches are scored by it since then';

CREATE TABLE mill.batch (
	batch_id BIGINT GENERATED BY DEFAULT AS IDENTITY (START WITH 0 MINVALUE 0), 
	bucket SMALLINT NOT NULL, 
	pair_count INTEGER DEFAULT '0' NOT NULL, 
	opened_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	closed_at TIMESTAMP WITH TIME ZONE, 
	CONSTRAINT batch_pkey PRIMARY KEY (batch_id)
);

CREATE UNIQUE INDEX batch_open_idx ON mill.batch (bucket) WHERE closed_at is null;

COMMENT ON TABLE mill.batch IS 'Up to batch_size pairs: the unit of download and scoring.';

COMMENT ON COLUMN mill.batch.batch_id IS 'Key';

COMMENT ON COLUMN mill.batch.bucket IS 'The share of new pairs that it is dealt while it is open';

COMMENT ON COLUMN mill.batch.pair_count IS 'Pairs in it; the next pair''s n';

COMMENT ON COLUMN mill.batch.opened_at IS 'When it was opened';

COMMENT ON COLUMN mill.batch.closed_at IS 'When its download task was made; null while it is open';

CREATE TABLE mill.wat_file (
	wat_id BIGINT GENERATED ALWAYS AS IDENTITY, 
	crawl_id INTEGER, 
	location TEXT NOT NULL, 
	added_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	CONSTRAINT wat_file_pkey PRIMARY KEY (wat_id), 
	CONSTRAINT wat_file_crawl_id_fkey FOREIGN KEY(crawl_id) REFERENCES mill.crawl (crawl_id), 
	CONSTRAINT wat_file_location_key UNIQUE (location)
);

COMMENT ON TABLE mill.wat_file IS 'A WAT file: the unit of extraction. Its state is its newest task''s.';

COMMENT ON COLUMN mill.wat_file.wat_id IS 'Key';

COMMENT ON COLUMN mill.wat_file.crawl_id IS 'The crawl that it belongs to; null for a file added alone';

COMMENT ON COLUMN mill.wat_file.location IS 'A path, or an http(s) or s3 URL, as the extract worker opens it';

COMMENT ON COLUMN mill.wat_file.added_at IS 'When it was added';

CREATE TABLE mill.instance (
	instance_id BIGINT GENERATED ALWAYS AS IDENTITY, 
	worker_id INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	protocol INTEGER NOT NULL, 
	started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	CONSTRAINT instance_pkey PRIMARY KEY (instance_id), 
	CONSTRAINT instance_worker_id_fkey FOREIGN KEY(worker_id) REFERENCES mill.worker (worker_id)
);

CREATE INDEX instance_worker_id_idx ON mill.instance (worker_id);

COMMENT ON TABLE mill.instance IS 'One process of a worker. Leases belong to it, so a restarted container does not keep its dead twin''s lease alive.';

COMMENT ON COLUMN mill.instance.instance_id IS 'Key';

COMMENT ON COLUMN mill.instance.worker_id IS 'Whose process it is';

COMMENT ON COLUMN mill.instance.version IS 'The version of Pairmill that it said it runs';

COMMENT ON COLUMN mill.instance.protocol IS 'The protocol that it said it speaks';

COMMENT ON COLUMN mill.instance.started_at IS 'When it said hello';

CREATE TABLE mill.task (
	task_id BIGINT GENERATED ALWAYS AS IDENTITY, 
	kind TEXT NOT NULL CONSTRAINT task_kind_check CHECK (kind in ('extract', 'download', 'score')), 
	state TEXT DEFAULT 'ready' NOT NULL CONSTRAINT task_state_check CHECK (state in ('ready', 'leased', 'submitted', 'done', 'parked')), 
	wat_id BIGINT, 
	batch_id BIGINT, 
	attempt SMALLINT DEFAULT '1' NOT NULL, 
	model_id INTEGER, 
	positions INTEGER[], 
	slot SMALLINT, 
	tries SMALLINT DEFAULT '0' NOT NULL, 
	ready_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	reason TEXT, 
	changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	CONSTRAINT task_pkey PRIMARY KEY (task_id), 
	CONSTRAINT task_wat_check CHECK ((kind = 'extract') = (wat_id is not null)), 
	CONSTRAINT task_batch_check CHECK ((kind <> 'extract') = (batch_id is not null)), 
	CONSTRAINT task_model_check CHECK ((kind = 'score') = (model_id is not null)), 
	CONSTRAINT task_wat_id_key UNIQUE (wat_id), 
	CONSTRAINT task_wat_id_fkey FOREIGN KEY(wat_id) REFERENCES mill.wat_file (wat_id), 
	CONSTRAINT task_batch_id_fkey FOREIGN KEY(batch_id) REFERENCES mill.batch (batch_id), 
	CONSTRAINT task_model_id_fkey FOREIGN KEY(model_id) REFERENCES mill.model (model_id)
);

CREATE INDEX task_slot_idx ON mill.task (slot) WHERE slot is not null;

CREATE UNIQUE INDEX task_download_key ON mill.task (batch_id, attempt) WHERE kind = 'download';

CREATE INDEX task_pending_idx ON mill.task (kind) WHERE state in ('ready', 'leased', 'submitted');

CREATE INDEX task_ready_idx ON mill.task (kind, task_id) WHERE state = 'ready';

CREATE UNIQUE INDEX task_score_key ON mill.task (batch_id, attempt, model_id) WHERE kind = 'score';

COMMENT ON TABLE mill.task IS 'The one queue, of every kind of work. A task is coarse: a WAT file, or a batch.';

COMMENT ON COLUMN mill.task.task_id IS 'Key';

COMMENT ON COLUMN mill.task.kind IS 'Which kind of worker does it';

COMMENT ON COLUMN mill.task.state IS 'ready, leased, submitted (awaiting acceptance), done or parked (gave up; reason says why)';

COMMENT ON COLUMN mill.task.wat_id IS 'extract: the WAT file';

COMMENT ON COLUMN mill.task.batch_id IS 'download, score: the batch';

COMMENT ON COLUMN mill.task.attempt IS 'download, score: 1 for the first download of the batch, and so on';

COMMENT ON COLUMN mill.task.model_id IS 'score: the model';

COMMENT ON COLUMN mill.task.positions IS 'download: the positions (n) to fetch; null for all of the batch';

COMMENT ON COLUMN mill.task.slot IS 'download: where its thumbnails lie; null before its first claim and once they are gone';

COMMENT ON COLUMN mill.task.tries IS 'Leases that failed or were lost';

COMMENT ON COLUMN mill.task.ready_at IS 'Not claimed before then';

COMMENT ON COLUMN mill.task.reason IS 'Why it failed last';

COMMENT ON COLUMN mill.task.changed_at IS 'When the state changed last';

CREATE TABLE mill.lease (
	lease_id BIGINT NOT NULL, 
	task_id BIGINT NOT NULL, 
	instance_id BIGINT NOT NULL, 
	claimed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	deadline TIMESTAMP WITH TIME ZONE NOT NULL, 
	ended_at TIMESTAMP WITH TIME ZONE, 
	ended_as TEXT CONSTRAINT lease_ended_as_check CHECK (ended_as in ('completed', 'released', 'failed', 'expired')), 
	CONSTRAINT lease_pkey PRIMARY KEY (lease_id), 
	CONSTRAINT lease_task_id_fkey FOREIGN KEY(task_id) REFERENCES mill.task (task_id), 
	CONSTRAINT lease_instance_id_fkey FOREIGN KEY(instance_id) REFERENCES mill.instance (instance_id)
)
 WITH (fillfactor = 70);

CREATE INDEX lease_holder_idx ON mill.lease (instance_id) WHERE ended_at is null;

CREATE UNIQUE INDEX lease_live_idx ON mill.lease (task_id) WHERE ended_at is null;

COMMENT ON TABLE mill.lease IS 'A claimed task. Only the database''s clock decides what is late.';

COMMENT ON COLUMN mill.lease.lease_id IS 'Fencing token, epoch * 2^40 + a sequence: never reused, always rising';

COMMENT ON COLUMN mill.lease.task_id IS 'What was claimed';

COMMENT ON COLUMN mill.lease.instance_id IS 'Which process holds it';

COMMENT ON COLUMN mill.lease.claimed_at IS 'When it was claimed';

COMMENT ON COLUMN mill.lease.expires_at IS 'Late from then on; a heartbeat moves it';

COMMENT ON COLUMN mill.lease.deadline IS 'No heartbeat moves expires_at beyond this';

COMMENT ON COLUMN mill.lease.ended_at IS 'When it ended; null while it is live';

COMMENT ON COLUMN mill.lease.ended_as IS 'completed, released, failed or expired';

CREATE TABLE mill.submission (
	submission_id BIGINT GENERATED ALWAYS AS IDENTITY, 
	task_id BIGINT NOT NULL, 
	lease_id BIGINT NOT NULL, 
	part INTEGER NOT NULL, 
	worker_id INTEGER NOT NULL, 
	state TEXT DEFAULT 'received' NOT NULL CONSTRAINT submission_state_check CHECK (state in ('received', 'accepted', 'rejected')), 
	row_count INTEGER NOT NULL, 
	reason TEXT, 
	received_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	decided_at TIMESTAMP WITH TIME ZONE, 
	CONSTRAINT submission_pkey PRIMARY KEY (submission_id), 
	CONSTRAINT submission_lease_id_part_key UNIQUE (lease_id, part), 
	CONSTRAINT submission_task_id_fkey FOREIGN KEY(task_id) REFERENCES mill.task (task_id), 
	CONSTRAINT submission_lease_id_fkey FOREIGN KEY(lease_id) REFERENCES mill.lease (lease_id), 
	CONSTRAINT submission_worker_id_fkey FOREIGN KEY(worker_id) REFERENCES mill.worker (worker_id)
);

CREATE INDEX submission_received_idx ON mill.submission (submission_id) WHERE state = 'received';

CREATE INDEX submission_worker_id_idx ON mill.submission (worker_id);

CREATE INDEX submission_task_id_idx ON mill.submission (task_id);

COMMENT ON TABLE mill.submission IS 'What a worker handed over under a lease, in one part of possibly several. Counted only once accepted.';

COMMENT ON COLUMN mill.submission.submission_id IS 'Key';

COMMENT ON COLUMN mill.submission.task_id IS 'The task';

COMMENT ON COLUMN mill.submission.lease_id IS 'The lease that it came in under';

COMMENT ON COLUMN mill.submission.part IS 'Chosen by the worker; the same part again is answered with the same submission';

COMMENT ON COLUMN mill.submission.worker_id IS 'Who gets the credit';

COMMENT ON COLUMN mill.submission.state IS 'received, accepted or rejected';

COMMENT ON COLUMN mill.submission.row_count IS 'Rows in it: links kept, outcomes, scores';

COMMENT ON COLUMN mill.submission.reason IS 'Why it was rejected';

COMMENT ON COLUMN mill.submission.received_at IS 'When it came in';

COMMENT ON COLUMN mill.submission.decided_at IS 'When it was accepted or rejected';

CREATE TABLE mill.submission_extract (
	submission_id BIGINT NOT NULL, 
	stage TEXT[] NOT NULL, 
	name TEXT[] NOT NULL, 
	count BIGINT[] NOT NULL, 
	CONSTRAINT submission_extract_pkey PRIMARY KEY (submission_id), 
	CONSTRAINT submission_extract_submission_id_fkey FOREIGN KEY(submission_id) REFERENCES mill.submission (submission_id)
);

COMMENT ON TABLE mill.submission_extract IS 'What an extraction counted, until it is accepted; its rows are in inbox.pair.';

COMMENT ON COLUMN mill.submission_extract.submission_id IS 'The submission';

COMMENT ON COLUMN mill.submission_extract.stage IS 'As wat_count.stage';

COMMENT ON COLUMN mill.submission_extract.name IS 'As wat_count.name';

COMMENT ON COLUMN mill.submission_extract.count IS 'As wat_count.count';

CREATE TABLE mill.submission_download (
	submission_id BIGINT NOT NULL, 
	positions INTEGER[] NOT NULL, 
	outcome SMALLINT[] NOT NULL, 
	http_status SMALLINT[] NOT NULL, 
	bytes INTEGER[] NOT NULL, 
	width INTEGER[] NOT NULL, 
	height INTEGER[] NOT NULL, 
	md5 UUID[] NOT NULL, 
	sha256 BYTEA[] NOT NULL, 
	dhash BIGINT[] NOT NULL, 
	CONSTRAINT submission_download_pkey PRIMARY KEY (submission_id), 
	CONSTRAINT submission_download_submission_id_fkey FOREIGN KEY(submission_id) REFERENCES mill.submission (submission_id)
);

COMMENT ON TABLE mill.submission_download IS 'The outcomes of a download submission, packed, until it is accepted: 4 bytes of WAL a URL against 76 for rows.';

COMMENT ON COLUMN mill.submission_download.submission_id IS 'The submission';

COMMENT ON COLUMN mill.submission_download.positions IS 'n of each row; the arrays below are parallel to it';

COMMENT ON COLUMN mill.submission_download.outcome IS 'As download.outcome';

COMMENT ON COLUMN mill.submission_download.http_status IS 'As download.http_status';

COMMENT ON COLUMN mill.submission_download.bytes IS 'As download.bytes';

COMMENT ON COLUMN mill.submission_download.width IS 'As download.width';

COMMENT ON COLUMN mill.submission_download.height IS 'As download.height';

COMMENT ON COLUMN mill.submission_download.md5 IS 'As download.md5';

COMMENT ON COLUMN mill.submission_download.sha256 IS 'As download.sha256';

COMMENT ON COLUMN mill.submission_download.dhash IS 'As download.dhash';

CREATE TABLE mill.withdrawn (
	submission_id BIGINT NOT NULL, 
	reason TEXT NOT NULL, 
	withdrawn_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	CONSTRAINT withdrawn_pkey PRIMARY KEY (submission_id), 
	CONSTRAINT withdrawn_submission_id_fkey FOREIGN KEY(submission_id) REFERENCES mill.submission (submission_id)
);

COMMENT ON TABLE mill.withdrawn IS 'Accepted submissions that no longer count.';

COMMENT ON COLUMN mill.withdrawn.submission_id IS 'The submission';

COMMENT ON COLUMN mill.withdrawn.reason IS 'Why';

COMMENT ON COLUMN mill.withdrawn.withdrawn_at IS 'When';

insert into mill.drop_reason (name) values ('no_url'), ('scheme'), ('bad_url'), ('url_too_long'), ('file_type'), ('no_text'), ('text_too_short'), ('text_too_long'), ('removed');

insert into mill.outcome (code, name) values (0, 'success'), (10, 'invalid_url'), (11, 'dns_failed'), (12, 'address_refused'), (13, 'port_refused'), (20, 'connect_failed'), (21, 'connect_timeout'), (22, 'tls_failed'), (23, 'connection_lost'), (24, 'timeout'), (30, 'bad_response'), (31, 'http_error'), (32, 'too_many_redirects'), (33, 'redirect_refused'), (34, 'too_large'), (35, 'empty'), (40, 'not_an_image'), (41, 'unsupported_image'), (42, 'truncated_image'), (43, 'broken_image'), (44, 'too_many_pixels'), (45, 'too_thin'), (90, 'internal_error');

insert into mill.score_outcome (code, name) values (0, 'scored'), (1, 'broken_thumbnail'), (2, 'not_finite');

-- Partitions of the result tables.

-- 1,000 batches, 10 million pairs, are one partition: LAION-5B's candidates would be about 5,000.
create function mill.ensure_partitions(upto_batch bigint) returns void
language plpgsql
as $$
declare
    width constant bigint := 1000;
    parent text;
    child text;
    low bigint;
begin
    -- batches are numbered in order: only the last partitions can be missing
    for low in select g * width from generate_series(greatest(0, upto_batch / width - 1), upto_batch / width) g loop
        foreach parent in array array['pair', 'download', 'score', 'embedding'] loop
            child := format('%s_b%s', parent, lpad((low / width)::text, 6, '0'));
            continue when to_regclass('mill.' || child) is not null;
            -- CREATE … PARTITION OF locks the parent against readers; LIKE and ATTACH do not
            execute format('create table mill.%I (like mill.%I including all)', child, parent);
            execute format('alter table mill.%I attach partition mill.%I for values from (%s) to (%s)',
                           parent, child, low, low + width);
            execute format('comment on table mill.%I is %L', child,
                           format('Batches %s to %s of mill.%s', low, low + width - 1, parent));
        end loop;
    end loop;
end
$$;
comment on function mill.ensure_partitions is
    'Makes the partitions of pair, download, score and embedding that hold batches up to this one.';

create function mill.ensure_slots(ring smallint) returns void
language plpgsql
as $$
declare
    child text;
begin
    for i in 0 .. ring - 1 loop
        child := format('thumbnail_s%s', i);
        continue when to_regclass('mill.' || child) is not null;
        execute format('create table mill.%I partition of mill.thumbnail for values in (%s)', child, i);
        -- JPEG does not compress: EXTERNAL saves the attempt
        execute format('alter table mill.%I alter column image set storage external', child);
        execute format('comment on table mill.%I is %L', child, format('Slot %s of the thumbnail ring', i));
        insert into mill.thumbnail_slot (slot) values (i);
    end loop;
end
$$;
comment on function mill.ensure_slots is 'Makes the thumbnail ring at least this many slots long.';

do $$
begin
    for i in 0 .. 15 loop
        execute format('create table mill.seen_url_h%s partition of mill.seen_url'
                       ' for values with (modulus 16, remainder %s)', lpad(i::text, 2, '0'), i);
        execute format('comment on table mill.seen_url_h%s is %L', lpad(i::text, 2, '0'),
                       format('Remainder %s of 16 of mill.seen_url', i));
    end loop;
end
$$;

select mill.ensure_partitions(0);
select mill.ensure_slots(8::smallint);
insert into mill.setting (only_row) values (1);


-- What every function that workers call begins with.
--
-- SQLSTATEs, all of class PM; workers turn the message into one sentence:
--   PM001  the lease is not held (any more): drop the work
--   PM002  this login is no worker, is disabled, or is of another kind
--   PM003  an argument or a submission is malformed; nothing was changed
--   PM004  this worker is too old
--   PM005  the task is not complete
--   PM006  the model is not known or not active

create function mill.refuse(code text, message text) returns void
language plpgsql
as $$
begin
    raise exception using errcode = code, message = message;
end
$$;
comment on function mill.refuse is 'Raises message under SQLSTATE code.';

-- Identity is session_user, never an argument.
create function mill.me(wanted_kind text default null) returns mill.worker
language plpgsql stable
as $$
declare
    w mill.worker;
begin
    select * into w from mill.worker where login = session_user;
    if not found then
        perform mill.refuse('PM002', 'this login is not a worker; an admin makes one with: pairmill worker add NAME --kind KIND');
    elsif w.disabled_at is not null then
        perform mill.refuse('PM002', format('worker %s was disabled by an admin', w.name));
    elsif wanted_kind is not null and w.kind <> wanted_kind then
        perform mill.refuse('PM002', format('worker %s is of kind %s, not %s', w.name, w.kind, wanted_kind));
    end if;
    return w;
end
$$;
comment on function mill.me is 'The calling worker; refused where the login is none, is disabled, or is of another kind.';

-- Whoever changes a task locks its row first, then its lease: one order, no deadlock.
create function mill.held(p_lease_id bigint, wanted_kind text) returns mill.task
language plpgsql
as $$
declare
    w mill.worker := mill.me(wanted_kind);
    t mill.task;
begin
    select t0.* into t
      from mill.task t0
      join mill.lease l on l.task_id = t0.task_id
     where l.lease_id = p_lease_id
       for update of t0;
    if not found or not exists (
        select
          from mill.lease l
          join mill.instance i on i.instance_id = l.instance_id
         where l.lease_id = p_lease_id
           and i.worker_id = w.worker_id
           and l.ended_at is null
           and l.expires_at > clock_timestamp()
    ) then
        perform mill.refuse('PM001', format('lease %s is not held: it ended, it was late, or it is another worker''s', p_lease_id));
    end if;
    return t;
end
$$;
comment on function mill.held is 'Locks and returns the task of a live lease of the caller''s; refused otherwise.';

create function mill.end_lease(p_lease_id bigint, how text) returns void
language sql
as $$
    update mill.lease set ended_at = clock_timestamp(), ended_as = how where lease_id = p_lease_id and ended_at is null
$$;
comment on function mill.end_lease is 'Ends a lease, once.';

-- Back to the queue after a failure; parked when it failed too often or no retry can help.
create function mill.put_back(p_task_id bigint, why text, retry boolean) returns void
language sql
as $$
    update mill.task t
       set state = case when not retry or t.tries + 1 >= s.max_tries then 'parked' else 'ready' end,
           tries = t.tries + 1,
           ready_at = now() + make_interval(secs => s.retry_seconds * 2 ^ least(t.tries, 10)),
           reason = left(why, 1000),
           changed_at = now()
      from mill.setting s
     where t.task_id = p_task_id
$$;
comment on function mill.put_back is 'Returns a task to the queue with back-off, or parks it.';

create function mill.sample_id(batch_id bigint, n integer) returns bigint
language sql immutable parallel safe
return (batch_id << 14) | n;
comment on function mill.sample_id is 'A pair''s stable id: batch_id * 16,384 + n.';


-- hello, claim, heartbeat, release, fail: what every kind of worker calls.

create function api.hello_v1(
    p_version text,
    p_protocol integer,
    out instance_id bigint,
    out name text,
    out kind text,
    out heartbeat_seconds integer
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    s mill.setting;
begin
    select * into s from mill.setting;
    if p_protocol < s.min_protocol then
        perform mill.refuse('PM004', format('this worker speaks protocol %s and the database needs %s: upgrade pairmill', p_protocol, s.min_protocol));
    end if;
    insert into mill.instance (worker_id, version, protocol)
    values (w.worker_id, left(p_version, 100), p_protocol)
    returning instance.instance_id into instance_id;
    name := w.name;
    kind := w.kind;
    heartbeat_seconds := greatest(1, s.lease_seconds / 4);
end
$$;
comment on function api.hello_v1 is 'First call of a worker process. Gives it its instance number.';

create function mill.take_slot() returns smallint
language plpgsql
as $$
declare
    taken smallint;
begin
    update mill.thumbnail_slot t
       set batches = t.batches + 1,
           state = case when t.batches + 1 >= s.batches_per_slot then 'full' else 'filling' end
      from mill.setting s
     where t.slot = (select slot from mill.thumbnail_slot
                      where state <> 'full' order by state desc, slot limit 1 for update)
    returning t.slot into taken;
    return taken;
end
$$;
comment on function mill.take_slot is 'A slot for one more batch of thumbnails: the one that is filling, else an empty one, else null.';

-- A claim never touches the result tables. MATERIALIZED, and not IN (subselect): under some plans
-- the subselect is run again for every row, and LIMIT 2 took 1,000 tasks.
create function mill.pick(p_kind text, p_model_id integer) returns mill.task
language sql
as $$
    with picked as materialized (
        select task_id
          from mill.task
         where state = 'ready' and kind = p_kind and ready_at <= now()
           and model_id is not distinct from p_model_id
         order by task_id
         limit 1
           for update skip locked
    )
    update mill.task t
       set state = 'leased', changed_at = now()
      from picked
     where t.task_id = picked.task_id
    returning t.*
$$;
comment on function mill.pick is 'Marks the oldest ready task of a kind leased and returns it.';

create function api.claim_v1(
    p_instance_id bigint,
    p_model_digest text default null,
    out lease_id bigint,
    out task_id bigint,
    out payload jsonb
) returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    s mill.setting;
    t mill.task;
    m integer;
begin
    select * into s from mill.setting;
    if not exists (select from mill.instance i where i.instance_id = p_instance_id and i.worker_id = w.worker_id) then
        perform mill.refuse('PM003', format('instance %s is not this worker''s: call hello_v1 first', p_instance_id));
    end if;
    -- one worker's claims are counted one after another, or two at once would pass the limit together
    perform from mill.worker where worker_id = w.worker_id for no key update;
    if (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) >= s.leases_per_worker then
        perform mill.refuse('PM003', format('this login holds %s live leases, the most that it may', s.leases_per_worker));
    end if;
    if w.kind = 'score' then
        select model_id into m from mill.model where digest = p_model_digest;
        if not found then
            perform mill.refuse('PM006', 'the database does not know a model with these weights; an admin adds it with: pairmill model add');
        end if;
    end if;
    t := mill.pick(w.kind, m);
    if t.task_id is null then
        return;
    end if;
    if w.kind = 'download' and t.slot is null then
        t.slot := mill.take_slot();
        if t.slot is null then  -- the ring is full: scoring has to catch up
            update mill.task set state = 'ready' where mill.task.task_id = t.task_id;
            return;
        end if;
        update mill.task set slot = t.slot where mill.task.task_id = t.task_id;
    end if;
    task_id := t.task_id;
    lease_id := (s.epoch::bigint << 40) + nextval('mill.lease_number');
    insert into mill.lease (lease_id, task_id, instance_id, expires_at, deadline)
    values (lease_id, t.task_id, p_instance_id,
            clock_timestamp() + make_interval(secs => s.lease_seconds),
            clock_timestamp() + make_interval(secs => s.lease_max_seconds));
    payload := case w.kind
        when 'extract' then (select jsonb_build_object('wat_id', wat_id, 'location', location) from mill.wat_file where wat_id = t.wat_id)
        when 'download' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt)
        when 'score' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt,
                                             'count', (select count(*) from mill.to_score(t)))
    end;
    return next;
end
$$;
comment on function api.claim_v1 is
    'Leases the oldest ready task of the caller''s kind: no row where there is none. payload: extract {wat_id, location}; '
    'download {batch_id, attempt}; score {batch_id, attempt, count}, count being the rows that thumbnails_v1 must give.';

create function api.heartbeat_v1(p_lease_id bigint) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    left_seconds integer;
begin
    update mill.lease l
       set expires_at = least(l.deadline, clock_timestamp() + make_interval(secs => s.lease_seconds))
      from mill.setting s, mill.instance i
     where l.lease_id = p_lease_id
       and i.instance_id = l.instance_id
       and i.worker_id = w.worker_id
       and l.ended_at is null
       and l.expires_at > clock_timestamp()
    returning extract(epoch from l.expires_at - clock_timestamp())::integer into left_seconds;
    if not found then
        perform mill.refuse('PM001', format('lease %s is not held: it ended, it was late, or it is another worker''s', p_lease_id));
    end if;
    return left_seconds;
end
$$;
comment on function api.heartbeat_v1 is 'Keeps a lease alive; returns the seconds that it now has.';

create function api.release_v1(p_lease_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, null);
begin
    perform mill.end_lease(p_lease_id, 'released');
    update mill.task set state = 'ready', changed_at = now() where task_id = t.task_id;
end
$$;
comment on function api.release_v1 is 'Hands a task back unfinished, for no fault of its own. What was submitted stays.';

create function api.fail_v1(p_lease_id bigint, p_reason text, p_retry boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, null);
begin
    perform mill.end_lease(p_lease_id, 'failed');
    perform mill.put_back(t.task_id, p_reason, p_retry);
end
$$;
comment on function api.fail_v1 is 'Hands a task back as failed: tried again later with back-off, or parked.';

create function api.me_v1(
    out name text, out kind text, out added_at timestamptz, out live_leases bigint,
    out rows_accepted bigint, out rows_waiting bigint, out rows_rejected bigint
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select w.name, w.kind, w.added_at,
           (select count(*) from mill.lease l join mill.instance i using (instance_id)
             where i.worker_id = w.worker_id and l.ended_at is null),
           coalesce(sum(s.row_count) filter (where s.state = 'accepted'), 0),
           coalesce(sum(s.row_count) filter (where s.state = 'received'), 0),
           coalesce(sum(s.row_count) filter (where s.state = 'rejected'), 0)
      from mill.me() w
      left join mill.submission s on s.worker_id = w.worker_id
     group by w.worker_id, w.name, w.kind, w.added_at
$$;
comment on function api.me_v1 is 'What the calling worker has done.';

create function mill.pending(kinds text[]) returns boolean
language sql stable
as $$
    select exists (select from mill.task where kind = any (kinds) and state in ('ready', 'leased', 'submitted'))
$$;
comment on function mill.pending is 'Whether a task of these kinds is ready, leased or awaiting acceptance.';

create function api.drained_v1(p_model_digest text default null) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    open_batches boolean := exists (select from mill.batch where closed_at is null and pair_count > 0);
begin
    return case w.kind
        when 'extract' then not mill.pending('{extract}')
        when 'download' then not mill.pending('{extract,download}') and not open_batches
        when 'score' then not mill.pending('{extract,download}') and not open_batches and not exists (
            select from mill.task join mill.model using (model_id)
             where kind = 'score' and state in ('ready', 'leased', 'submitted') and digest = p_model_digest)
        when 'steward' then not mill.pending('{extract,download,score}') and not open_batches and not exists (
            select from mill.thumbnail_slot where state <> 'empty' and mill.slot_is_done(slot))
    end;
end
$$;
comment on function api.drained_v1 is
    'Whether nothing is left to claim for the caller''s kind (and model), nor anything upstream that could become it. '
    'Parked tasks do not count.';

create sequence mill.lease_number as bigint;
comment on sequence mill.lease_number is 'Lower 40 bits of a lease number.';


-- The download worker's part: which URLs, and what became of them.

create function mill.covered(t mill.task) returns table (n integer)
language sql stable
as $$
    select d.n from mill.download d where d.batch_id = t.batch_id and d.attempt = t.attempt
    union all
    select unnest(sd.positions)
      from mill.submission s
      join mill.submission_download sd using (submission_id)
     where s.task_id = t.task_id and s.state = 'received'
$$;
comment on function mill.covered is 'Positions of a download task that a received or accepted submission covers.';

create function mill.to_download(t mill.task) returns table (n integer, url text)
language sql stable
as $$
    select p.n, p.url
      from mill.pair p
     where p.batch_id = t.batch_id
       and (t.positions is null or p.n = any (t.positions))
       and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
       and p.n not in (select c.n from mill.covered(t) c)
$$;
comment on function mill.to_download is 'Positions of a download task that no received or accepted submission covers yet.';

create function api.urls_v1(p_lease_id bigint) returns table (n integer, url text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
begin
    return query select d.n, d.url from mill.to_download(t) d order by d.n;
end
$$;
comment on function api.urls_v1 is 'What is left to fetch under this lease: what an earlier holder submitted is not asked for again.';

-- The answer to a part that was submitted already: a repeat (the reply was lost) is no second submission.
create function mill.submitted_before(p_lease_id bigint, p_part integer) returns bigint
language sql stable
as $$
    select submission_id from mill.submission where lease_id = p_lease_id and part = p_part
$$;
comment on function mill.submitted_before is 'The submission of this lease and part, if there is one.';

create function mill.receive(t mill.task, p_lease_id bigint, p_part integer, p_rows integer) returns bigint
language sql
as $$
    insert into mill.submission (task_id, lease_id, part, worker_id, row_count)
    select t.task_id, p_lease_id, p_part, i.worker_id, p_rows
      from mill.lease l join mill.instance i using (instance_id)
     where l.lease_id = p_lease_id
    returning submission_id
$$;
comment on function mill.receive is 'Records a submission as received.';

create function api.submit_download_v1(
    p_lease_id bigint,
    p_part integer,
    p_positions integer[],
    p_outcome smallint[],
    p_http_status smallint[],
    p_bytes integer[],
    p_width integer[],
    p_height integer[],
    p_md5 uuid[],
    p_sha256 bytea[],
    p_dhash bigint[],
    p_thumbnail_positions integer[],
    p_thumbnails bytea[]
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
    id bigint := mill.submitted_before(p_lease_id, p_part);
    rows constant integer := cardinality(p_positions);
    limit_bytes constant integer := (select thumbnail_max_bytes from mill.setting);
begin
    if id is not null then
        return id;
    end if;
    if rows is null or rows = 0 or p_part is null or array_ndims(p_positions) <> 1
       or array[cardinality(p_outcome), cardinality(p_http_status), cardinality(p_bytes), cardinality(p_width),
                cardinality(p_height), cardinality(p_md5), cardinality(p_sha256), cardinality(p_dhash)]
          is distinct from array_fill(rows, array[8]) then
        perform mill.refuse('PM003', 'a submission needs a part number and one to batch_size positions, all arrays of one length');
    end if;
    if cardinality(p_thumbnails) is distinct from cardinality(p_thumbnail_positions) then
        perform mill.refuse('PM003', 'there must be one position for each thumbnail');
    end if;
    -- one pass over what is left to do finds strangers, repeats and what another part covers
    if rows <> (select count(*) from mill.to_download(t) d where d.n = any (p_positions))
       or rows <> (select count(distinct p) from unnest(p_positions) p) then
        perform mill.refuse('PM003', 'a position is not of this task, is given twice, or was submitted already');
    end if;
    if exists (
        select
          from unnest(p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash)
               as r (n, outcome, http_status, bytes, width, height, md5, sha256, dhash)
         where not exists (select from mill.outcome o where o.code = r.outcome)
            or r.http_status not between 100 and 599
            or r.bytes < 0 or r.width < 1 or r.height < 1
            or octet_length(r.sha256) <> 32
            or (r.outcome = 0) <> (r.n = any (coalesce(p_thumbnail_positions, '{}')))
            or r.outcome = 0 and num_nulls(r.http_status, r.bytes, r.width, r.height, r.md5, r.sha256, r.dhash) > 0
    ) then
        perform mill.refuse('PM003', 'a row is malformed: an unknown outcome, a number out of range, or a success without its image');
    end if;
    if exists (
        select from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image)
         where coalesce(octet_length(image), 0) not between 1 and limit_bytes
            or not n = any (p_positions)
    ) or cardinality(p_thumbnail_positions) <> (select count(distinct p) from unnest(p_thumbnail_positions) p) then
        perform mill.refuse('PM003', format('a thumbnail is empty, above %s bytes, given twice, or of no position here', limit_bytes));
    end if;
    id := mill.receive(t, p_lease_id, p_part, rows);
    insert into mill.submission_download
    values (id, p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash);
    insert into mill.thumbnail (slot, batch_id, n, attempt, submission_id, image)
    select t.slot, t.batch_id, r.n, t.attempt, id, r.image
      from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image);
    return id;
end
$$;
comment on function api.submit_download_v1 is
    'Hands over the outcomes of some positions, as parallel arrays, with the thumbnails of the successes. Idempotent by '
    '(lease, part). Refused whole, changing nothing, if anything in it is wrong.';

create function api.complete_v1(p_lease_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, null);
    missing bigint;
begin
    select count(*) into missing
      from (select n from mill.to_download(t) where t.kind = 'download'
            union all
            select n from mill.to_score(t) where t.kind = 'score') x;
    if t.kind = 'extract' or missing > 0 then
        perform mill.refuse('PM005', format('task %s is not complete: %s positions were not submitted', t.task_id, missing));
    end if;
    perform mill.end_lease(p_lease_id, 'completed');
    update mill.task set state = 'submitted', changed_at = now() where task_id = t.task_id;
    perform mill.settle(t.task_id);
end
$$;
comment on function api.complete_v1 is 'Ends a download or score lease whose every position was submitted; refused otherwise.';

create function mill.accept_download(s mill.submission, t mill.task) returns void
language sql
as $$
    insert into mill.download (batch_id, n, attempt, outcome, http_status, bytes, width, height, md5, sha256, dhash, submission_id)
    select t.batch_id, r.n, t.attempt, r.outcome, r.http_status, r.bytes, r.width, r.height, r.md5, r.sha256, r.dhash, s.submission_id
      from mill.submission_download sd,
           unnest(sd.positions, sd.outcome, sd.http_status, sd.bytes, sd.width, sd.height, sd.md5, sd.sha256, sd.dhash)
           as r (n, outcome, http_status, bytes, width, height, md5, sha256, dhash)
     where sd.submission_id = s.submission_id;
    delete from mill.submission_download where submission_id = s.submission_id;
$$;
comment on function mill.accept_download is 'Expands a download submission into rows.';


-- The extract worker's part, and the merge that decides which links are new.

create function api.submit_extract_v1(
    p_lease_id bigint,
    p_rows integer,
    p_stage text[],
    p_name text[],
    p_count bigint[]
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task;
    id bigint := mill.submitted_before(p_lease_id, 0);
    links bigint;
    dropped bigint;
begin
    -- asked first: the first call ended the lease, and its answer may have been lost
    if id is not null and exists (
        select from mill.submission s where s.submission_id = id and s.worker_id = (mill.me('extract')).worker_id) then
        return id;
    end if;
    t := mill.held(p_lease_id, 'extract');
    if p_rows is null or p_rows <> (select count(*) from inbox.pair where lease_id = p_lease_id and worker = session_user) then
        perform mill.refuse('PM003', format('%s rows were announced, and another number was copied under lease %s', p_rows, p_lease_id));
    end if;
    select sum(c) filter (where s = 'links'), coalesce(sum(c) filter (where s = 'dropped'), 0)
      into links, dropped
      from unnest(p_stage, p_name, p_count) as x (s, n, c);
    if links is distinct from p_rows + dropped then
        perform mill.refuse('PM003', format('the counts do not add up: %s links are not %s kept and %s dropped', links, p_rows, dropped));
    end if;
    if exists (
        select from unnest(p_stage, p_name, p_count) as x (s, n, c)
         where s is null or n is null or c is null or c < 0 or length(n) > 200
            or s not in ('records', 'links', 'bad_record', 'ended_early', 'dropped')
            or s = 'dropped' and not exists (select from mill.drop_reason d where d.name = x.n)
    ) then
        perform mill.refuse('PM003', 'a count is malformed: an unknown stage or drop reason, or a negative number');
    end if;
    id := mill.receive(t, p_lease_id, 0, p_rows);
    insert into mill.submission_extract values (id, p_stage, p_name, p_count);
    perform mill.end_lease(p_lease_id, 'completed');
    update mill.task set state = 'submitted', changed_at = now() where task_id = t.task_id;
    return id;
end
$$;
comment on function api.submit_extract_v1 is
    'Hands over what was copied into inbox.pair under this lease, with its counts, and ends the lease. Idempotent. '
    'Refused unless links = rows + dropped.';

-- How many batches new pairs are dealt over: expected pairs / batch_size, rounded up, at most open_batches_max.
create function mill.open_batches(new_pairs bigint) returns integer
language sql stable
as $$
    select greatest(1, least(s.open_batches_max, ceil((new_pairs + expected.pairs)::numeric / s.batch_size)))::integer
      from mill.setting s,
           lateral (
               -- all but the one that is being accepted
               select (select greatest(count(*) - 1, 0) from mill.task
                        where kind = 'extract' and state in ('ready', 'leased', 'submitted'))
                      * coalesce((select sum(count) / nullif(count(distinct wat_id), 0) from mill.wat_count where stage = 'pair'),
                                 s.pairs_per_wat) as pairs
           ) expected
$$;
comment on function mill.open_batches is 'Number of buckets to deal these new pairs and those still to come over.';

-- The new URLs of one extraction: first of its key in the file, not removed, never seen, dealt over
-- so many buckets by hash. Read from the inbox once, and only the sender's own rows: anybody who may
-- COPY can name any lease.
create function mill.stage_merge(s mill.submission, buckets integer, out removed bigint, out fresh bigint)
language plpgsql
as $$
declare
    sender name := (select login from mill.worker where worker_id = s.worker_id);
    staged bigint;
begin
    truncate mill.merge_row;
    select count(*), count(*) filter (where exists (select from mill.removal r where r.md5 = i.url_key))
      into staged, removed
      from inbox.pair i where i.lease_id = s.lease_id and i.worker = sender;
    if staged <> s.row_count then
        perform mill.refuse('23000', format('%s rows were submitted and %s are there', s.row_count, staged));
    end if;
    insert into mill.merge_row (bucket, place, url_key, url, text, language, language_probability, license)
    select k.bucket, row_number() over (partition by k.bucket order by f.url_key) - 1,
           f.url_key, f.url, f.text, f.language, f.language_probability, f.license
      from (select distinct on (i.url_key) i.*
              from inbox.pair i
             where i.lease_id = s.lease_id and i.worker = sender
             order by i.url_key, i.ordinal) f,
           lateral (select get_byte(uuid_send(f.url_key), 15) % buckets as bucket) k
     where not exists (select from mill.removal r where r.md5 = f.url_key)
       and not exists (select from mill.seen_url k where k.url_key = f.url_key);
    get diagnostics fresh = row_count;
end
$$;
comment on function mill.stage_merge is
    'Fills mill.merge_row with an extraction''s new URLs, dealt over buckets; counts the removed and the new.';

create function mill.open_batch(p_bucket integer) returns bigint
language plpgsql
as $$
declare
    id bigint;
begin
    insert into mill.batch (bucket) values (p_bucket) returning batch_id into id;
    perform mill.ensure_partitions(id);
    return id;
end
$$;
comment on function mill.open_batch is 'Opens a batch for a bucket.';

create function mill.close_batch(p_batch_id bigint) returns void
language sql
as $$
    update mill.batch set closed_at = now() where batch_id = p_batch_id and closed_at is null;
    insert into mill.task (kind, batch_id) values ('download', p_batch_id);
$$;
comment on function mill.close_batch is 'Closes a batch and makes its download task.';

-- Turns mill.merge_row into pairs: dealt by hash, so that every batch mixes hosts and WAT files.
create function mill.deal(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    size constant integer := (select batch_size from mill.setting);
    share record;
    b mill.batch;
    dealt_bucket integer[] := '{}';
    dealt_first integer[] := '{}';  -- place of the bucket's row that is n = 0; negative in a batch that was begun before
    dealt_batch bigint[] := '{}';
    next_place integer;
begin
    -- in order of id: whoever else locks several batches does it in the same order
    perform from mill.batch where closed_at is null order by batch_id for update;
    for share in select bucket, count(*)::integer as rows from mill.merge_row group by bucket order by bucket loop
        next_place := 0;
        while next_place < share.rows loop
            select * into b from mill.batch where closed_at is null and bucket = share.bucket;
            if not found then
                b.batch_id := mill.open_batch(share.bucket);
                b.pair_count := 0;
            end if;
            dealt_bucket := dealt_bucket || share.bucket::integer;
            dealt_first := dealt_first || (next_place - b.pair_count);
            dealt_batch := dealt_batch || b.batch_id;
            update mill.batch set pair_count = least(size, b.pair_count + share.rows - next_place)
             where batch_id = b.batch_id;
            next_place := next_place + size - b.pair_count;
            if next_place <= share.rows then
                perform mill.close_batch(b.batch_id);
            end if;
        end loop;
    end loop;
    with dealt as (
        insert into mill.pair (batch_id, n, wat_id, submission_id, url_key, url, text, language, language_probability, license)
        select d.batch_id, m.place - d.first, t.wat_id, s.submission_id,
               m.url_key, m.url, m.text, m.language, m.language_probability, m.license
          from mill.merge_row m
          join unnest(dealt_bucket, dealt_first, dealt_batch) as d (bucket, first, batch_id)
            on d.bucket = m.bucket and m.place >= d.first and m.place < d.first + size
        returning url_key, batch_id, n
    )
    insert into mill.seen_url (url_key, batch_id, n) select url_key, batch_id, n from dealt order by url_key;
end
$$;
comment on function mill.deal is 'Turns the staged new URLs into pairs of the open batches; full batches are closed.';

create function mill.accept_extract(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    m record;
begin
    lock table mill.seen_url in share row exclusive mode;  -- one merge at a time
    select * into m from mill.stage_merge(s, mill.open_batches(s.row_count));
    perform mill.deal(s, t);
    insert into mill.wat_count (submission_id, wat_id, stage, name, count)
    select s.submission_id, t.wat_id, c.stage, c.name, sum(c.count)
      from (select x.stage, x.name, x.count
              from mill.submission_extract e, unnest(e.stage, e.name, e.count) as x (stage, name, count)
             where e.submission_id = s.submission_id
            union all
            select 'dropped', 'removed', m.removed where m.removed > 0
            union all
            select 'duplicate', '', s.row_count - m.removed - m.fresh
            union all
            select 'pair', coalesce(r.language, ''), count(*) from mill.merge_row r group by r.language) c
     group by c.stage, c.name;
    delete from mill.submission_extract where submission_id = s.submission_id;
    delete from inbox.pair where lease_id = s.lease_id;
end
$$;
comment on function mill.accept_extract is 'Merges an extraction: dedupes it against every known URL, deals what is new, counts the rest.';

create function api.close_batches_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    b mill.batch;
    closed integer := 0;
    everything boolean;
begin
    lock table mill.seen_url in share row exclusive mode;  -- no merge is dealing
    everything := not mill.pending('{extract}');
    for b in
        select x.* from mill.batch x, mill.setting s
         where x.closed_at is null and x.pair_count > 0
           and (everything or x.opened_at < now() - make_interval(secs => s.batch_open_seconds))
         order by batch_id for update of x
    loop
        perform mill.close_batch(b.batch_id);
        closed := closed + 1;
    end loop;
    return closed;
end
$$;
comment on function api.close_batches_v1 is
    'Closes batches that are open for too long, and all of them when no extraction is ready, leased or awaiting acceptance.';


-- The score worker's part: thumbnails and texts out, similarities and embeddings in.

create function mill.to_score(t mill.task) returns table (n integer, submission_id bigint)
language sql stable
as $$
    select d.n, d.submission_id
      from mill.download d
     where d.batch_id = t.batch_id and d.attempt = t.attempt and d.outcome = 0
       and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
       and d.n not in (
           select s.n from mill.score s
            where s.batch_id = t.batch_id and s.attempt = t.attempt and s.model_id = t.model_id
              and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)
           union all
           select i.n
             from mill.submission s
             join inbox.score i on i.lease_id = s.lease_id and i.part = s.part
            where s.task_id = t.task_id and s.state = 'received')
$$;
comment on function mill.to_score is
    'Positions of a score task that no received or accepted submission covers yet, with the submission of their thumbnail.';

create function api.thumbnails_v1(p_lease_id bigint, p_from integer, p_to integer)
returns table (n integer, text text, image bytea)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'score');
    in_slot smallint := (select d.slot from mill.task d
                          where d.kind = 'download' and d.batch_id = t.batch_id and d.attempt = t.attempt);
begin
    if in_slot is null then
        return;
    end if;
    -- the slot as a literal: the plan opens one partition of the ring, not all
    return query execute format(
        'select s.n, p.text, h.image'
        '  from mill.to_score($1) s'
        '  join mill.pair p on p.batch_id = $2 and p.n = s.n'
        '  join mill.thumbnail h on h.slot = %s and h.batch_id = $2 and h.attempt = $3'
        '   and h.n = s.n and h.submission_id = s.submission_id'
        ' where s.n >= $4 and s.n < $5'
        ' order by s.n', in_slot)
        using t, t.batch_id, t.attempt, p_from, p_to;
end
$$;
comment on function api.thumbnails_v1 is
    'Text and thumbnail of positions from p_from up to, not including, p_to. Meant for COPY (SELECT …) TO STDOUT. A scorer that '
    'gets fewer rows in all than its claim counted must fail the task: TRUNCATE is not MVCC-safe, an old snapshot reads none.';

create function api.submit_score_v1(p_lease_id bigint, p_part integer, p_rows integer) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'score');
    id bigint := mill.submitted_before(p_lease_id, p_part);
    bytes constant integer := 2 * (select dims from mill.model where model_id = t.model_id);
begin
    if id is not null then
        return id;
    end if;
    if p_part is null or p_rows is null or p_rows = 0 or p_rows <> (
        select count(*) from inbox.score where lease_id = p_lease_id and part = p_part and worker = session_user) then
        perform mill.refuse('PM003', format('%s rows were announced, and another number was copied under lease %s, part %s',
                                            p_rows, p_lease_id, p_part));
    end if;
    if p_rows <> (select count(distinct i.n) from inbox.score i join mill.to_score(t) s on s.n = i.n
                   where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user) then
        perform mill.refuse('PM003', 'a position is not of this task, is given twice, or was submitted already');
    end if;
    if exists (
        select from inbox.score i
         where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user
           and (not exists (select from mill.score_outcome o where o.code = i.outcome)
                or (i.outcome = 0) <> (num_nonnulls(i.similarity, i.image, i.text) = 3)
                or i.outcome <> 0 and num_nonnulls(i.similarity, i.image, i.text) > 0
                -- rounding may pass 1 by a little; NaN is above every number
                or not i.similarity between -1.01 and 1.01
                or octet_length(i.image) <> bytes or octet_length(i.text) <> bytes)
    ) then
        perform mill.refuse('PM003', 'a row is malformed: an unknown outcome, a similarity outside -1 to 1, or an embedding of other dims');
    end if;
    return mill.receive(t, p_lease_id, p_part, p_rows);
end
$$;
comment on function api.submit_score_v1 is
    'Hands over what was copied into inbox.score under this lease and part. Idempotent by (lease, part).';

create function mill.accept_score(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    accepted bigint;
begin
    -- one snapshot for all of it: a sender may go on copying under a number that it has submitted
    with sent as materialized (
        select i.*
          from inbox.score i join mill.worker w on w.login = i.worker
         where i.lease_id = s.lease_id and i.part = s.part and w.worker_id = s.worker_id
    ), scored as (
        insert into mill.score (batch_id, n, attempt, model_id, outcome, similarity, submission_id)
        select t.batch_id, n, t.attempt, t.model_id, outcome, similarity, s.submission_id from sent
    ), embedded as (
        insert into mill.embedding (batch_id, n, attempt, model_id, image, text, submission_id)
        select t.batch_id, n, t.attempt, t.model_id, image, text, s.submission_id from sent where outcome = 0
    )
    select count(*) into accepted from sent;
    if accepted <> s.row_count then
        perform mill.refuse('23000', format('%s rows were submitted and %s are there', s.row_count, accepted));
    end if;
    delete from inbox.score where lease_id = s.lease_id and part = s.part;
end
$$;
comment on function mill.accept_score is 'Moves a score submission from its inbox into score and embedding.';


-- Acceptance: the only place where anything is counted.

create function mill.queue_scoring(p_batch_id bigint, p_attempt smallint, p_model_id integer) returns void
language sql
as $$
    insert into mill.task (kind, batch_id, attempt, model_id)
    select 'score', p_batch_id, p_attempt, p_model_id
     where exists (
         select from mill.download d
          where d.batch_id = p_batch_id and d.attempt = p_attempt and d.outcome = 0
            and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id))
    on conflict do nothing
$$;
comment on function mill.queue_scoring is 'Makes the score task of a batch''s attempt for a model, if there is a thumbnail to score.';

-- A submitted task is done once nothing of it awaits acceptance; if a part was rejected it goes back.
create function mill.settle(p_task_id bigint) returns void
language plpgsql
as $$
declare
    t mill.task;
begin
    select * into t from mill.task where task_id = p_task_id for update;
    if t.state <> 'submitted' or exists (
        select from mill.submission where task_id = p_task_id and state = 'received') then
        return;
    end if;
    if exists (select from mill.to_download(t) where t.kind = 'download')
       or exists (select from mill.to_score(t) where t.kind = 'score') then
        perform mill.put_back(p_task_id, 'a part of what was submitted was rejected', true);
        return;
    end if;
    update mill.task set state = 'done', reason = null, changed_at = now() where task_id = p_task_id;
    if t.kind = 'download' then
        perform mill.queue_scoring(t.batch_id, t.attempt, model_id) from mill.model order by model_id;
    end if;
end
$$;
comment on function mill.settle is 'Ends a submitted task whose submissions are all decided, and makes what follows from it.';

create function mill.reject(s mill.submission, why text) returns void
language plpgsql
as $$
begin
    update mill.submission set state = 'rejected', reason = left(why, 1000), decided_at = now()
     where submission_id = s.submission_id;
    delete from mill.submission_extract where submission_id = s.submission_id;
    delete from mill.submission_download where submission_id = s.submission_id;
    -- an extraction's rows are all under its lease; a scoring's under lease and part
    delete from inbox.pair where lease_id = s.lease_id;
    delete from inbox.score where lease_id = s.lease_id and part = s.part;
    if (select kind from mill.task where task_id = s.task_id) = 'extract' then
        perform mill.put_back(s.task_id, why, true);
    else
        perform mill.settle(s.task_id);
    end if;
end
$$;
comment on function mill.reject is 'Throws a received submission away; its positions are asked for again.';

create function api.accept_next_v1(out submission_id bigint, out kind text, out row_count integer, out rejected_because text)
returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    s mill.submission;
    t mill.task;
begin
    -- unlocked look, then task before submission: the order in which every function locks
    select * into s from mill.submission x where x.state = 'received' order by x.submission_id limit 1;
    if not found then
        return;
    end if;
    select * into t from mill.task x where x.task_id = s.task_id for update;
    select * into s from mill.submission x where x.submission_id = s.submission_id for update;
    submission_id := s.submission_id;
    kind := t.kind;
    row_count := s.row_count;
    if s.state = 'received' then
        begin
            case t.kind
                when 'extract' then perform mill.accept_extract(s, t);
                when 'download' then perform mill.accept_download(s, t);
                when 'score' then perform mill.accept_score(s, t);
            end case;
            update mill.submission x set state = 'accepted', decided_at = now() where x.submission_id = s.submission_id;
            perform mill.settle(t.task_id);
        exception when data_exception or integrity_constraint_violation then
            rejected_because := sqlerrm;
            perform mill.reject(s, sqlerrm);
        end;
    end if;
    return next;
end
$$;
comment on function api.accept_next_v1 is
    'Accepts the oldest received submission in one transaction: expands it into rows, credits it, ends its task. '
    'No row when nothing waits. Data that no constraint lets in is rejected, with the reason.';

-- What an accepted submission gave no longer counts, and is queued again.
create function mill.withdraw(p_submission_id bigint, why text) returns void
language plpgsql
as $$
declare
    s mill.submission;
    t mill.task;
begin
    select x.* into t from mill.task x join mill.submission y using (task_id) where y.submission_id = p_submission_id for update of x;
    select * into s from mill.submission where submission_id = p_submission_id for update;
    if s.state is distinct from 'accepted' then
        perform mill.refuse('PM003', format('submission %s is not an accepted one', p_submission_id));
    end if;
    insert into mill.withdrawn (submission_id, reason) values (p_submission_id, why) on conflict do nothing;
    if not found then
        return;
    end if;
    case t.kind
        when 'extract' then
            -- its pairs stay, marked out; their URLs may come in again
            delete from mill.seen_url k using mill.pair p
             where p.submission_id = p_submission_id and k.url_key = p.url_key and k.batch_id = p.batch_id and k.n = p.n;
            delete from mill.wat_count where submission_id = p_submission_id;
            update mill.task set state = 'ready', tries = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id;
        when 'download' then
            -- scores of its thumbnails stop counting with it: they are of this attempt
            insert into mill.task (kind, batch_id, attempt, positions)
            select 'download', t.batch_id,
                   (select max(attempt) + 1 from mill.task where batch_id = t.batch_id and kind = 'download'),
                   array_agg(d.n order by d.n)
              from mill.download d
             where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = p_submission_id;
        when 'score' then
            update mill.task set state = 'ready', tries = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id and state in ('done', 'parked');
    end case;
end
$$;
comment on function mill.withdraw is
    'Withdraws an accepted submission: nothing it gave counts any more, and its task is done again '
    '(a download as a new attempt at its positions).';


-- What the steward does besides accepting: late leases, the thumbnail ring, partitions.

create function api.expire_leases_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    t record;
    expired integer := 0;
begin
    for t in
        select x.task_id, l.lease_id
          from mill.task x join mill.lease l using (task_id)
         where l.ended_at is null and l.expires_at <= clock_timestamp()
         order by x.task_id
           for update of x skip locked
    loop
        -- looked at again under the lock: it may have been completed meanwhile
        if exists (select from mill.lease l where l.lease_id = t.lease_id and l.ended_at is null and l.expires_at <= clock_timestamp()) then
            perform mill.end_lease(t.lease_id, 'expired');
            perform mill.put_back(t.task_id, format('lease %s was lost: no heartbeat in time', t.lease_id), true);
            update mill.task set ready_at = now() where task_id = t.task_id;  -- another may try at once
            expired := expired + 1;
        end if;
    end loop;
    return expired;
end
$$;
comment on function api.expire_leases_v1 is 'Returns the tasks of late leases to the queue; what was submitted under them stays.';

create function api.sweep_inbox_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    swept bigint;
    more bigint;
begin
    -- a lease number that does not exist was invented: nothing will ever submit it either
    delete from inbox.pair i
     where not exists (select from mill.lease l where l.lease_id = i.lease_id and l.ended_at is null)
       and not exists (select from mill.submission s where s.lease_id = i.lease_id and s.state = 'received');
    get diagnostics swept = row_count;
    delete from inbox.score i
     where not exists (select from mill.lease l where l.lease_id = i.lease_id and l.ended_at is null)
       and not exists (select from mill.submission s where s.lease_id = i.lease_id and s.part = i.part and s.state = 'received');
    get diagnostics more = row_count;
    return swept + more;
end
$$;
comment on function api.sweep_inbox_v1 is 'Deletes what was copied into an inbox and never submitted before its lease ended.';

create function mill.slot_is_done(p_slot smallint) returns boolean
language sql stable
as $$
    select exists (select from mill.model)
       and not exists (
        select
          from mill.task d
          left join mill.task s on s.kind = 'score' and s.batch_id = d.batch_id and s.attempt = d.attempt
          cross join mill.setting
         where d.kind = 'download' and d.slot = p_slot
           and ('ready' in (d.state, s.state) or 'leased' in (d.state, s.state) or 'submitted' in (d.state, s.state)
                or d.state = 'parked' and d.changed_at > now() - make_interval(secs => parked_hold_seconds)
                or s.state = 'parked' and s.changed_at > now() - make_interval(secs => parked_hold_seconds)))
$$;
comment on function mill.slot_is_done is
    'Whether nobody needs a slot''s thumbnails any more: its downloads and their score tasks are done, or parked for long. '
    'False while there is no model: they were fetched to be scored.';

create function api.empty_slots_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    w mill.worker := mill.me('steward');
    candidate smallint;
    emptied integer := 0;
begin
    for candidate in select slot from mill.thumbnail_slot where state <> 'empty' order by slot loop
        begin
            perform from mill.thumbnail_slot where slot = candidate for update;  -- no claim adds a batch
            continue when not mill.slot_is_done(candidate);
            execute format('truncate mill.thumbnail_s%s', candidate);
            update mill.task set slot = null where slot = candidate;
            update mill.thumbnail_slot set state = 'empty', batches = 0 where slot = candidate;
            emptied := emptied + 1;
        exception when lock_not_available then
            null;  -- a reader is at work; the next round tries again
        end;
    end loop;
    return emptied;
end
$$;
comment on function api.empty_slots_v1 is 'Truncates the thumbnail slots that nobody needs any more.';

create function api.ensure_partitions_v1() returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
begin
    -- half a partition ahead of the newest batch
    perform mill.ensure_partitions(coalesce((select max(batch_id) from mill.batch), 0) + 500);
end
$$;
comment on function api.ensure_partitions_v1 is 'Makes the partitions that the next batches will need.';


-- What the admin's commands call. No EXECUTE for anyone but the owner and its members.

create function mill.add_wat(p_crawl text, p_locations text[]) returns integer
language sql
as $$
    with the_crawl as (
        insert into mill.crawl (name) select p_crawl where p_crawl is not null
        on conflict (name) do update set name = excluded.name
        returning crawl_id
    ), added as (
        insert into mill.wat_file (crawl_id, location)
        select (select crawl_id from the_crawl), l.location
          from (select location, min(ordinality) as place from unnest(p_locations) with ordinality u (location, ordinality)
                 group by location) l
         order by l.place
        on conflict (location) do nothing
        returning wat_id
    ), queued as (
        insert into mill.task (kind, wat_id) select 'extract', wat_id from added order by wat_id returning 1
    )
    select count(*)::integer from queued
$$;
comment on function mill.add_wat is 'Adds WAT files, and their extract tasks; those known already are left alone. Returns how many were new.';

create function mill.add_model(p_name text, p_pretrained text, p_digest text, p_dims integer, out model_id integer, out queued integer)
language plpgsql
as $$
begin
    insert into mill.model (name, pretrained, digest, dims) values (p_name, p_pretrained, p_digest, p_dims)
    on conflict (digest) do update set name = excluded.name, pretrained = excluded.pretrained
    returning model.model_id into model_id;
    perform mill.queue_scoring(t.batch_id, t.attempt, add_model.model_id)
       from mill.task t where t.kind = 'download' and t.state = 'done' and t.slot is not null;
    select count(*) into queued from mill.task t where t.model_id = add_model.model_id and t.state = 'ready';
end
$$;
comment on function mill.add_model is 'Makes a model known, and queues the batches whose thumbnails are still there.';

create function mill.add_worker(p_login name, p_name text, p_kind text, p_password text) returns void
language plpgsql
as $$
begin
    insert into mill.worker (login, name, kind) values (p_login, p_name, p_kind);
    execute format('create role %I login password %L connection limit 8 in role %I',
                   p_login, p_password, left(current_database(), 40) || '_' || p_kind);
    execute format('alter role %I set statement_timeout = %L', p_login, '10min');
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', p_login, '5min');
end
$$;
comment on function mill.add_worker is 'Makes a worker and its login. The password is a SCRAM verifier, so that no log holds it.';

create function mill.add_researcher(p_login name, p_password text) returns void
language plpgsql
as $$
begin
    execute format('create role %I login password %L connection limit 4 in role %I',
                   p_login, p_password, left(current_database(), 40) || '_researcher');
    execute format('alter role %I set default_transaction_read_only = on', p_login);
    execute format('alter role %I set statement_timeout = %L', p_login, '30min');
end
$$;
comment on function mill.add_researcher is 'Makes a login that reads the views in report.';

create function mill.disable_worker(p_name text) returns boolean
language plpgsql
as $$
declare
    l name;
begin
    update mill.worker set disabled_at = coalesce(disabled_at, now()) where name = p_name returning login into l;
    if not found then
        return false;
    end if;
    execute format('alter role %I nologin', l);
    perform pg_terminate_backend(pid) from pg_stat_activity where usename = l;
    return true;
end
$$;
comment on function mill.disable_worker is 'Ends a worker''s login and its sessions. Its leases run out; what was accepted stays.';

-- A parked task whose thumbnails are gone cannot go on where it stopped: what it lacks is fetched anew.
create function mill.retry_task(p_task_id bigint) returns text
language plpgsql
as $$
declare
    t mill.task;
    d mill.task;
    anew integer[];
begin
    select * into t from mill.task where task_id = p_task_id for update;
    if not found or t.state <> 'parked' then
        return null;
    end if;
    select * into d from mill.task x where x.kind = 'download' and x.batch_id = t.batch_id and x.attempt = t.attempt;
    if t.kind = 'extract' or d.slot is not null
       or t.kind = 'download' and not exists (select from mill.download x where x.batch_id = t.batch_id and x.attempt = t.attempt) then
        update mill.task set state = 'ready', tries = 0, ready_at = now(), changed_at = now() where task_id = p_task_id;
        return t.kind;
    end if;
    select array_agg(n order by n) into anew
      from (select n from mill.to_score(t) where t.kind = 'score'
            union all
            select p.n from mill.pair p
             where t.kind = 'download' and p.batch_id = t.batch_id and (t.positions is null or p.n = any (t.positions))) x;
    update mill.task set state = 'done', reason = 'its thumbnails are gone: downloaded again', changed_at = now() where task_id = p_task_id;
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', t.batch_id, max(attempt) + 1, anew
      from mill.task where kind = 'download' and batch_id = t.batch_id
    having anew is not null;
    return 'download';
end
$$;
comment on function mill.retry_task is
    'Queues a parked task again. Returns the kind of work that was queued, or null where the task is not parked.';

create function mill.park_task(p_task_id bigint, why text) returns boolean
language plpgsql
as $$
begin
    perform from mill.task where task_id = p_task_id for update;
    update mill.task set state = 'parked', reason = why, changed_at = now()
     where task_id = p_task_id and state in ('ready', 'leased');
    if not found then
        return false;
    end if;
    perform mill.end_lease(lease_id, 'expired') from mill.lease where task_id = p_task_id and ended_at is null;
    return true;
end
$$;
comment on function mill.park_task is 'Takes a ready or leased task out of the queue; its holder''s next call is refused.';


-- What researchers and dashboards read. One row is one of what the view is named after.

create view mill.current_download as
select d.*
  from mill.download d
 where not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
   and not exists (
       select
         from mill.download later
        where later.batch_id = d.batch_id and later.n = d.n and later.attempt > d.attempt
          and not exists (select from mill.withdrawn w where w.submission_id = later.submission_id));
comment on view mill.current_download is 'The download that counts for a pair: of those not withdrawn, the highest attempt.';

create view mill.current_score as
select s.*
  from mill.score s
  join mill.current_download d on d.batch_id = s.batch_id and d.n = s.n and d.attempt = s.attempt
 where not exists (select from mill.withdrawn w where w.submission_id = s.submission_id);
comment on view mill.current_score is 'The scores that count for a pair: not withdrawn, and of the download that counts.';

create view report.pair as
select mill.sample_id(p.batch_id, p.n) as sample_id, p.batch_id, p.n, p.wat_id,
       p.url, p.text, coalesce(p.language, 'nolang') as language, p.language_probability, p.license,
       o.name as outcome, d.http_status, d.bytes, d.width, d.height, d.md5, d.sha256, d.dhash, d.attempt,
       exists (select from mill.removal r where r.md5 in (p.url_key, d.md5) or r.sha256 = d.sha256) as removed
  from mill.pair p
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
  left join mill.outcome o on o.code = d.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id);
comment on view report.pair is 'Every pair with the download that counts. Name a range of batch_id: there may be billions.';
comment on column report.pair.sample_id is 'Stable id: batch_id * 16,384 + n; SAMPLE_ID in a release';
comment on column report.pair.batch_id is 'Batch of up to 10,000 pairs';
comment on column report.pair.n is 'Position within the batch';
comment on column report.pair.wat_id is 'The WAT file that it came from; see report.wat';
comment on column report.pair.url is 'Absolute URL of the image, without a fragment';
comment on column report.pair.text is 'The cleaned alt text';
comment on column report.pair.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.pair.language_probability is 'CLD3''s probability of its best guess';
comment on column report.pair.license is 'A licence link of the page; null where there is none';
comment on column report.pair.outcome is 'How the download ended; null while it has not';
comment on column report.pair.http_status is 'The last HTTP status; null where no server answered';
comment on column report.pair.bytes is 'Length of the body as received';
comment on column report.pair.width is 'Width of the original in pixels';
comment on column report.pair.height is 'Height of the original in pixels';
comment on column report.pair.md5 is 'md5 of the image''s bytes';
comment on column report.pair.sha256 is 'sha256 of the image''s bytes';
comment on column report.pair.dhash is '64-bit difference hash, as a signed integer';
comment on column report.pair.attempt is 'Which download attempt this is';
comment on column report.pair.removed is 'Whether a removal names its URL or its image';

create view report.score as
select mill.sample_id(s.batch_id, s.n) as sample_id, s.batch_id, s.n, m.name as model, m.pretrained,
       o.name as outcome, s.similarity
  from mill.current_score s
  join mill.model m using (model_id)
  join mill.score_outcome o on o.code = s.outcome;
comment on view report.score is 'Every score that counts. Name a range of batch_id.';
comment on column report.score.sample_id is 'As report.pair.sample_id';
comment on column report.score.batch_id is 'As report.pair.batch_id';
comment on column report.score.n is 'As report.pair.n';
comment on column report.score.model is 'Name of the model';
comment on column report.score.pretrained is 'Its weights: open_clip''s tag or a path';
comment on column report.score.outcome is 'scored, or why not';
comment on column report.score.similarity is 'Cosine similarity of image and text; null unless scored';

create view report.wat as
select f.wat_id, f.location, c.name as crawl,
       t.state, t.tries, t.reason,
       n.records, n.links, n.dropped, n.duplicates, n.pairs, n.bad_records, n.ended_early
  from mill.wat_file f
  left join mill.crawl c using (crawl_id)
  join mill.task t on t.wat_id = f.wat_id
  left join lateral (
      select sum(count) filter (where stage = 'records')::bigint as records,
             sum(count) filter (where stage = 'links')::bigint as links,
             jsonb_object_agg(name, count) filter (where stage = 'dropped') as dropped,
             sum(count) filter (where stage = 'duplicate')::bigint as duplicates,
             sum(count) filter (where stage = 'pair')::bigint as pairs,
             jsonb_object_agg(name, count) filter (where stage = 'bad_record') as bad_records,
             min(name) filter (where stage = 'ended_early') as ended_early
        from mill.wat_count w where w.wat_id = f.wat_id
  ) n on true;
comment on view report.wat is 'WAT files with what their extraction counted: links = dropped + duplicates + pairs.';
comment on column report.wat.wat_id is 'Key';
comment on column report.wat.location is 'Path or URL';
comment on column report.wat.crawl is 'The crawl that it belongs to, if any';
comment on column report.wat.state is 'ready, leased, submitted, done or parked';
comment on column report.wat.tries is 'How often its extraction failed';
comment on column report.wat.reason is 'Why it failed last';
comment on column report.wat.records is 'WARC records read';
comment on column report.wat.links is 'IMG@/src links seen';
comment on column report.wat.dropped is 'Links dropped, by reason';
comment on column report.wat.duplicates is 'Links whose URL was known already, from this file or another';
comment on column report.wat.pairs is 'Links that became pairs';
comment on column report.wat.bad_records is 'Records that could not be read, by kind';
comment on column report.wat.ended_early is 'Why the rest of the file could not be read; null where it could';

create view report.link_count as
select stage, name, sum(count)::bigint as count from mill.wat_count group by stage, name;
comment on view report.link_count is 'What all extractions counted: links = dropped + duplicate + pair.';
comment on column report.link_count.stage is 'records, links, bad_record, ended_early, dropped, duplicate or pair';
comment on column report.link_count.name is 'Within the stage: drop reason, kind of bad record, language; else empty';
comment on column report.link_count.count is 'How many';

create view report.pair_count as
select coalesce(p.language, 'nolang') as language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs
  from mill.pair p
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
  left join mill.outcome o on o.code = d.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2;
comment on view report.pair_count is 'Pairs by language and by how their download ended. Reads every pair.';
comment on column report.pair_count.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.pair_count.outcome is 'How the download ended; waiting while it has not';
comment on column report.pair_count.pairs is 'How many pairs';

create view report.score_count as
select m.name as model, coalesce(p.language, 'nolang') as language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs
  from mill.pair p
  join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n and d.outcome = 0
 cross join mill.model m
  left join mill.current_score s on s.batch_id = p.batch_id and s.n = p.n and s.model_id = m.model_id
  left join mill.score_outcome o on o.code = s.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2, 3;
comment on view report.score_count is 'Downloaded pairs by model and by how their scoring ended. Reads every pair.';
comment on column report.score_count.model is 'Name of the model';
comment on column report.score_count.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.score_count.outcome is 'scored, or why not; waiting while it has not been tried';
comment on column report.score_count.pairs is 'How many pairs';

create view report.task as
select t.task_id, t.kind, t.state, t.wat_id, t.batch_id, t.attempt, m.name as model, t.tries, t.ready_at, t.reason, t.changed_at,
       w.name as worker, l.expires_at as lease_expires_at
  from mill.task t
  left join mill.model m using (model_id)
  left join mill.lease l on l.task_id = t.task_id and l.ended_at is null
  left join mill.instance i on i.instance_id = l.instance_id
  left join mill.worker w on w.worker_id = i.worker_id;
comment on view report.task is 'Every task, with who holds it.';
comment on column report.task.task_id is 'Key';
comment on column report.task.kind is 'extract, download or score';
comment on column report.task.state is 'ready, leased, submitted, done or parked';
comment on column report.task.wat_id is 'extract: the WAT file';
comment on column report.task.batch_id is 'download, score: the batch';
comment on column report.task.attempt is 'download, score: which attempt at the batch';
comment on column report.task.model is 'score: the model';
comment on column report.task.tries is 'How often it failed or was lost';
comment on column report.task.ready_at is 'Not claimed before then';
comment on column report.task.reason is 'Why it failed last';
comment on column report.task.changed_at is 'When its state changed last';
comment on column report.task.worker is 'Who holds its lease';
comment on column report.task.lease_expires_at is 'When that lease is late';

create view report.worker as
select w.name, w.kind, w.added_at, w.disabled_at,
       (select max(i.started_at) from mill.instance i where i.worker_id = w.worker_id) as started_at,
       (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) as live_leases,
       coalesce(sum(s.row_count) filter (where s.state = 'accepted' and x.submission_id is null), 0)::bigint as rows_accepted
  from mill.worker w
  left join mill.submission s using (worker_id)
  left join mill.withdrawn x using (submission_id)
 group by w.worker_id;
comment on view report.worker is 'Workers and what was accepted of them.';
comment on column report.worker.name is 'What people call it';
comment on column report.worker.kind is 'extract, download, score or steward';
comment on column report.worker.added_at is 'When it was added';
comment on column report.worker.disabled_at is 'When it was disabled; null while it may work';
comment on column report.worker.started_at is 'When its newest process started';
comment on column report.worker.live_leases is 'Tasks that it holds now';
comment on column report.worker.rows_accepted is 'Rows accepted and not withdrawn: links, outcomes or scores';

create view report.model as
select name, pretrained, digest, dims, active_since from mill.model;
comment on view report.model is 'The models that score.';
comment on column report.model.name is 'open_clip''s model name, or the folder of a model';
comment on column report.model.pretrained is 'open_clip''s tag or a checkpoint''s path; empty where the name says it all';
comment on column report.model.digest is 'sha256 of the weights';
comment on column report.model.dims is 'Length of an embedding';
comment on column report.model.active_since is 'Since when new batches are scored by it';


-- Who may call what. EXECUTE is PUBLIC's by default: taken away in the transaction that made it.

revoke all on all functions in schema mill, api from public;

do $$
declare
    prefix constant text := left(current_database(), 40) || '_';
    f record;
    k text;
begin
    for f in select * from (values
        ('api.hello_v1', '{extract,download,score,steward}'::text[]),
        ('api.claim_v1', '{extract,download,score}'),
        ('api.heartbeat_v1', '{extract,download,score}'),
        ('api.release_v1', '{extract,download,score}'),
        ('api.fail_v1', '{extract,download,score}'),
        ('api.complete_v1', '{download,score}'),
        ('api.me_v1', '{extract,download,score,steward}'),
        ('api.drained_v1', '{extract,download,score,steward}'),
        ('api.submit_extract_v1', '{extract}'),
        ('api.urls_v1', '{download}'),
        ('api.submit_download_v1', '{download}'),
        ('api.thumbnails_v1', '{score}'),
        ('api.submit_score_v1', '{score}'),
        ('api.accept_next_v1', '{steward}'),
        ('api.close_batches_v1', '{steward}'),
        ('api.expire_leases_v1', '{steward}'),
        ('api.sweep_inbox_v1', '{steward}'),
        ('api.empty_slots_v1', '{steward}'),
        ('api.ensure_partitions_v1', '{steward}')
    ) as x (name, kinds) loop
        foreach k in array f.kinds loop
            execute format('grant execute on function %s to %I', f.name, prefix || k);
        end loop;
    end loop;
    foreach k in array array['extract', 'download', 'score', 'steward'] loop
        execute format('grant usage on schema api to %I', prefix || k);
    end loop;
    execute format('grant usage on schema inbox to %I, %I', prefix || 'extract', prefix || 'score');
    -- not on the column worker: the server fills it in, so nobody forges another's rows
    execute format('grant insert (lease_id, ordinal, url_key, url, text, language, language_probability, license)'
                   ' on inbox.pair to %I', prefix || 'extract');
    execute format('grant insert (lease_id, part, n, outcome, similarity, image, text) on inbox.score to %I', prefix || 'score');
    execute format('grant usage on schema report to %I', prefix || 'researcher');
    execute format('grant select on all tables in schema report to %I', prefix || 'researcher');
    -- a view's functions are called with its reader's rights
    execute format('grant execute on function mill.sample_id to %I', prefix || 'researcher');
end
$$;

