BEGIN TRANSACTION;
CREATE TABLE alerts (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        run_id TEXT NOT NULL,
                        timestamp TEXT NOT NULL,
                        run_name TEXT NOT NULL,
                        title TEXT NOT NULL,
                        text TEXT,
                        level TEXT NOT NULL DEFAULT 'warn',
                        step INTEGER,
                        alert_id TEXT
                    );
INSERT INTO "alerts" VALUES(1,'7b36ad2ebb0f4afbb2aef0ec9c939b31','2026-11-22T00:34:06.079356+00:00','svm-1','low','it is low','warn',6,'623a3add58654fa39d72a1d83230c75e');
CREATE TABLE artifact_aliases (
                        artifact_id INTEGER NOT NULL REFERENCES artifacts(id),
                        alias TEXT NOT NULL,
                        artifact_version_id INTEGER NOT NULL REFERENCES artifact_versions(id),
                        PRIMARY KEY (artifact_id, alias)
                    );
INSERT INTO "artifact_aliases" VALUES(1,'latest',1);
CREATE TABLE artifact_versions (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        artifact_id INTEGER NOT NULL REFERENCES artifacts(id),
                        version INTEGER NOT NULL,
                        manifest_digest TEXT NOT NULL,
                        manifest TEXT NOT NULL,
                        metadata TEXT,
                        size_bytes INTEGER NOT NULL,
                        producer_run_id TEXT,
                        producer_run_name TEXT,
                        created_at TEXT NOT NULL,
                        UNIQUE(artifact_id, version),
                        UNIQUE(artifact_id, manifest_digest)
                    );
INSERT INTO "artifact_versions" VALUES(1,1,0,'81ea342f0c3f8ae22d25529eafd143b50acde12eab7fd158d991149884f9f0ce','[{"path":"m.txt","digest":"9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c","size":7}]',NULL,7,'7b36ad2ebb0f4afbb2aef0ec9c939b31','svm-1','2026-11-22T00:34:06.172615+00:00');
CREATE TABLE artifacts (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        name TEXT NOT NULL UNIQUE,
                        type TEXT NOT NULL,
                        description TEXT,
                        created_at TEXT NOT NULL
                    );
INSERT INTO "artifacts" VALUES(1,'model','model',NULL,'2026-11-22T00:34:06.172615+00:00');
CREATE TABLE configs (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        run_id TEXT NOT NULL,
                        run_name TEXT NOT NULL,
                        config TEXT NOT NULL,
                        created_at TEXT NOT NULL,
                        UNIQUE(run_id)
                    );
INSERT INTO "configs" VALUES(1,'7b36ad2ebb0f4afbb2aef0ec9c939b31','svm-1',X'7B226C72223A302E312C226E6574223A7B226465707468223A337D2C226C6179657273223A5B312C325D2C226E6F6E65223A6E756C6C2C225F557365726E616D65223A6E756C6C2C225F43726561746564223A22323032362D31312D32325430303A33343A30362E3031373935342B30303A3030222C225F47726F7570223A227365656473227D','2026-11-22T00:34:06.231498+00:00');
INSERT INTO "configs" VALUES(2,'907aaefb66ec4de1878338e5e0459bab','svm-2',X'7B226C72223A302E322C226E6574223A7B226465707468223A337D2C226C6179657273223A5B312C325D2C226E6F6E65223A6E756C6C2C225F557365726E616D65223A6E756C6C2C225F43726561746564223A22323032362D31312D32325430303A33343A30362E3434383636322B30303A3030222C225F47726F7570223A227365656473227D','2026-11-22T00:34:06.486772+00:00');
CREATE TABLE external_run_artifact_links (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        run_id TEXT,
                        run_name TEXT,
                        source_project TEXT NOT NULL,
                        source_version_id INTEGER NOT NULL,
                        source_artifact TEXT NOT NULL,
                        source_type TEXT NOT NULL,
                        source_version INTEGER NOT NULL,
                        source_size_bytes INTEGER NOT NULL,
                        direction TEXT NOT NULL CHECK(direction IN ('input', 'output')),
                        created_at TEXT NOT NULL
                    );
CREATE TABLE metrics (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        run_id TEXT NOT NULL,
                        timestamp TEXT NOT NULL,
                        run_name TEXT NOT NULL,
                        step INTEGER NOT NULL,
                        metrics TEXT NOT NULL
                    , log_id TEXT, space_id TEXT);
INSERT INTO "metrics" VALUES(1,'7b36ad2ebb0f4afbb2aef0ec9c939b31','2026-11-22T00:34:06.201769+00:00','svm-1',0,X'7B226C6F7373223A302E312C226E6573746564223A7B2278223A307D7D','8d315fd52755457c8cbc7d73a88ce1c3',NULL);
INSERT INTO "metrics" VALUES(2,'7b36ad2ebb0f4afbb2aef0ec9c939b31','2026-11-22T00:34:06.201769+00:00','svm-1',2,X'7B226C6F7373223A302E30352C226E6573746564223A7B2278223A317D7D','15a253c738b3441f8491ee174f37e0d9',NULL);
INSERT INTO "metrics" VALUES(3,'7b36ad2ebb0f4afbb2aef0ec9c939b31','2026-11-22T00:34:06.201769+00:00','svm-1',4,X'7B226C6F7373223A302E30333333333333333333333333333333332C226E6573746564223A7B2278223A327D7D','662c92dae5da4ada9ad42e3b6bd43587',NULL);
INSERT INTO "metrics" VALUES(4,'7b36ad2ebb0f4afbb2aef0ec9c939b31','2026-11-22T00:34:06.201769+00:00','svm-1',6,X'7B226E616E223A224E614E222C22696E66223A222D496E66696E697479222C2274657874223A2268656C6C6F222C22696D67223A7B225F74797065223A22747261636B696F2E696D616765222C2266696C655F70617468223A226469676974732F73766D2D312F362F39653133643334632D616561322D343635642D613461342D3634626131326565393165622E706E67222C2263617074696F6E223A22626C61636B227D2C2277656967687473223A7B225F74797065223A22747261636B696F2E686973746F6772616D222C2262696E73223A5B312E302C322E302C332E305D2C2276616C756573223A5B312C325D7D2C227461626C65223A7B225F74797065223A22747261636B696F2E7461626C65222C225F76616C7565223A5B7B2261223A317D5D7D2C22666C6167223A747275652C22626967223A313135323932313530343630363834363937377D','dc93f60ac0074b1695f897eaf678a75d',NULL);
INSERT INTO "metrics" VALUES(5,'907aaefb66ec4de1878338e5e0459bab','2026-11-22T00:34:06.459161+00:00','svm-2',0,X'7B226C6F7373223A302E322C226E6573746564223A7B2278223A307D7D','45bdd36c671d434894a442156ab1080f',NULL);
INSERT INTO "metrics" VALUES(6,'907aaefb66ec4de1878338e5e0459bab','2026-11-22T00:34:06.459161+00:00','svm-2',2,X'7B226C6F7373223A302E312C226E6573746564223A7B2278223A317D7D','45eb45cd07d045a19ed3093d67f4b707',NULL);
INSERT INTO "metrics" VALUES(7,'907aaefb66ec4de1878338e5e0459bab','2026-11-22T00:34:06.459161+00:00','svm-2',4,X'7B226C6F7373223A302E30363636363636363636363636363636372C226E6573746564223A7B2278223A327D7D','5062004a716746019cc94ec2312447f4',NULL);
CREATE TABLE pending_uploads (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        space_id TEXT NOT NULL,
                        run_id TEXT,
                        run_name TEXT,
                        step INTEGER,
                        file_path TEXT NOT NULL,
                        relative_path TEXT,
                        created_at TEXT NOT NULL
                    , kind TEXT NOT NULL DEFAULT 'media', digest TEXT);
CREATE TABLE project_metadata (
                        key TEXT PRIMARY KEY,
                        value TEXT NOT NULL
                    );
CREATE TABLE run_artifact_links (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        run_id TEXT,
                        run_name TEXT,
                        run_project TEXT,
                        artifact_version_id INTEGER NOT NULL REFERENCES artifact_versions(id),
                        direction TEXT NOT NULL CHECK(direction IN ('input', 'output')),
                        created_at TEXT NOT NULL
                    );
INSERT INTO "run_artifact_links" VALUES(1,'7b36ad2ebb0f4afbb2aef0ec9c939b31','svm-1',NULL,1,'output','2026-11-22T00:34:06.172615+00:00');
CREATE TABLE system_metrics (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        run_id TEXT NOT NULL,
                        timestamp TEXT NOT NULL,
                        run_name TEXT NOT NULL,
                        metrics TEXT NOT NULL
                    , log_id TEXT, space_id TEXT);
INSERT INTO "system_metrics" VALUES(1,'7b36ad2ebb0f4afbb2aef0ec9c939b31','2026-11-22T00:34:06.084316+00:00','svm-1',X'7B22677075223A302E357D','73516028544b4936b44f993d9541f9e0',NULL);
CREATE TABLE traces (
                        id TEXT PRIMARY KEY,
                        run_id TEXT NOT NULL,
                        timestamp TEXT NOT NULL,
                        run_name TEXT NOT NULL,
                        step INTEGER NOT NULL,
                        key TEXT NOT NULL,
                        trace_index INTEGER,
                        messages TEXT NOT NULL,
                        metadata TEXT NOT NULL,
                        search_text TEXT NOT NULL,
                        log_id TEXT,
                        space_id TEXT,
                        spans TEXT NOT NULL DEFAULT '[]'
                    );
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('artifacts',1);
INSERT INTO "sqlite_sequence" VALUES('artifact_versions',1);
INSERT INTO "sqlite_sequence" VALUES('run_artifact_links',1);
INSERT INTO "sqlite_sequence" VALUES('metrics',7);
INSERT INTO "sqlite_sequence" VALUES('configs',2);
INSERT INTO "sqlite_sequence" VALUES('system_metrics',1);
INSERT INTO "sqlite_sequence" VALUES('alerts',1);
COMMIT;