BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('b7e2c1a4d9f3');
CREATE TABLE assessments (
	assessment_id VARCHAR(50) NOT NULL, 
	trace_id VARCHAR(50) NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	assessment_type VARCHAR(20) NOT NULL, 
	value TEXT NOT NULL, 
	error TEXT, 
	created_timestamp BIGINT NOT NULL, 
	last_updated_timestamp BIGINT NOT NULL, 
	source_type VARCHAR(50) NOT NULL, 
	source_id VARCHAR(250), 
	run_id VARCHAR(32), 
	span_id VARCHAR(50), 
	rationale TEXT, 
	overrides VARCHAR(50), 
	valid BOOLEAN NOT NULL, 
	assessment_metadata TEXT, 
	CONSTRAINT assessments_pk PRIMARY KEY (assessment_id), 
	CONSTRAINT fk_assessments_trace_id FOREIGN KEY(trace_id) REFERENCES trace_info (request_id) ON DELETE CASCADE
);
CREATE TABLE budget_policies (
	budget_policy_id VARCHAR(36) NOT NULL, 
	budget_unit VARCHAR(32) NOT NULL, 
	budget_amount FLOAT NOT NULL, 
	duration_unit VARCHAR(32) NOT NULL, 
	duration_value INTEGER NOT NULL, 
	target_scope VARCHAR(32) NOT NULL, 
	budget_action VARCHAR(32) NOT NULL, 
	created_by VARCHAR(255), 
	created_at BIGINT NOT NULL, 
	last_updated_by VARCHAR(255), 
	last_updated_at BIGINT NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, target_value VARCHAR(255), 
	CONSTRAINT budget_policies_pk PRIMARY KEY (budget_policy_id)
);
CREATE TABLE "datasets" (
	dataset_uuid VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	digest VARCHAR(36) NOT NULL, 
	dataset_source_type VARCHAR(36) NOT NULL, 
	dataset_source TEXT NOT NULL, 
	dataset_schema TEXT, 
	dataset_profile TEXT, 
	CONSTRAINT dataset_pk PRIMARY KEY (experiment_id, name, digest), 
	CONSTRAINT fk_datasets_experiment_id_experiments FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE
);
INSERT INTO "datasets" VALUES('8d8b4d1e2bd04e03b08c0982f164697d',1,'CartPole-v1','8e066ea0e9984cbe2cee6b7fd2269ce3','gymnasium','{"env_name": "CartPole-v1", "env_kwargs": {}}','{"mlflow_tensorspec": {"features": "[{\"name\": \"observation\", \"type\": \"tensor\", \"tensor-spec\": {\"dtype\": \"float32\", \"shape\": [-1, 4]}}]"}}','{"max_episode_steps": 500, "reward_threshold": 475.0, "action": {"kind": "discrete", "n": 2, "start": 0}}');
CREATE TABLE endpoint_bindings (
	endpoint_id VARCHAR(36) NOT NULL, 
	resource_type VARCHAR(50) NOT NULL, 
	resource_id VARCHAR(255) NOT NULL, 
	created_at BIGINT NOT NULL, 
	created_by VARCHAR(255), 
	last_updated_at BIGINT NOT NULL, 
	last_updated_by VARCHAR(255), display_name VARCHAR(255), 
	CONSTRAINT endpoint_bindings_pk PRIMARY KEY (endpoint_id, resource_type, resource_id), 
	CONSTRAINT fk_endpoint_bindings_endpoint_id FOREIGN KEY(endpoint_id) REFERENCES endpoints (endpoint_id) ON DELETE CASCADE
);
CREATE TABLE endpoint_model_mappings (
	mapping_id VARCHAR(36) NOT NULL, 
	endpoint_id VARCHAR(36) NOT NULL, 
	model_definition_id VARCHAR(36) NOT NULL, 
	weight FLOAT NOT NULL, 
	created_by VARCHAR(255), 
	created_at BIGINT NOT NULL, linkage_type VARCHAR(64) DEFAULT 'PRIMARY' NOT NULL, fallback_order INTEGER, 
	CONSTRAINT endpoint_model_mappings_pk PRIMARY KEY (mapping_id), 
	CONSTRAINT fk_endpoint_model_mappings_endpoint_id FOREIGN KEY(endpoint_id) REFERENCES endpoints (endpoint_id) ON DELETE CASCADE, 
	CONSTRAINT fk_endpoint_model_mappings_model_definition_id FOREIGN KEY(model_definition_id) REFERENCES model_definitions (model_definition_id)
);
CREATE TABLE endpoint_tags (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	endpoint_id VARCHAR(36) NOT NULL, 
	CONSTRAINT endpoint_tag_pk PRIMARY KEY ("key", endpoint_id), 
	CONSTRAINT fk_endpoint_tags_endpoint_id FOREIGN KEY(endpoint_id) REFERENCES endpoints (endpoint_id) ON DELETE CASCADE
);
CREATE TABLE "endpoints" (
	endpoint_id VARCHAR(36) NOT NULL, 
	name VARCHAR(255), 
	created_by VARCHAR(255), 
	created_at BIGINT NOT NULL, 
	last_updated_by VARCHAR(255), 
	last_updated_at BIGINT NOT NULL, 
	routing_strategy VARCHAR(64), 
	fallback_config_json TEXT, 
	experiment_id INTEGER, 
	usage_tracking BOOLEAN DEFAULT '0' NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT endpoints_pk PRIMARY KEY (endpoint_id), 
	CONSTRAINT fk_endpoints_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE SET NULL, 
	CONSTRAINT uq_endpoints_workspace_name UNIQUE (workspace, name)
);
CREATE TABLE entity_associations (
	association_id VARCHAR(36) NOT NULL, 
	source_type VARCHAR(36) NOT NULL, 
	source_id VARCHAR(36) NOT NULL, 
	destination_type VARCHAR(36) NOT NULL, 
	destination_id VARCHAR(36) NOT NULL, 
	created_time BIGINT, 
	CONSTRAINT entity_associations_pk PRIMARY KEY (source_type, source_id, destination_type, destination_id)
);
CREATE TABLE "evaluation_dataset_records" (
	dataset_record_id VARCHAR(36) NOT NULL, 
	dataset_id VARCHAR(36) NOT NULL, 
	inputs JSON NOT NULL, 
	expectations JSON, 
	tags JSON, 
	source JSON, 
	source_id VARCHAR(36), 
	source_type VARCHAR(255), 
	created_time BIGINT, 
	last_update_time BIGINT, 
	created_by VARCHAR(255), 
	last_updated_by VARCHAR(255), 
	input_hash VARCHAR(64) NOT NULL, outputs JSON, 
	CONSTRAINT evaluation_dataset_records_pk PRIMARY KEY (dataset_record_id), 
	CONSTRAINT fk_evaluation_dataset_records_dataset_id FOREIGN KEY(dataset_id) REFERENCES evaluation_datasets (dataset_id) ON DELETE CASCADE, 
	CONSTRAINT unique_dataset_input UNIQUE (dataset_id, input_hash)
);
CREATE TABLE evaluation_dataset_tags (
	dataset_id VARCHAR(36) NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	value VARCHAR(5000), 
	CONSTRAINT evaluation_dataset_tags_pk PRIMARY KEY (dataset_id, "key"), 
	CONSTRAINT fk_evaluation_dataset_tags_dataset_id FOREIGN KEY(dataset_id) REFERENCES evaluation_datasets (dataset_id) ON DELETE CASCADE
);
CREATE TABLE "evaluation_datasets" (
	dataset_id VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	schema TEXT, 
	profile TEXT, 
	digest VARCHAR(64), 
	created_time BIGINT, 
	last_update_time BIGINT, 
	created_by VARCHAR(255), 
	last_updated_by VARCHAR(255), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT evaluation_datasets_pk PRIMARY KEY (dataset_id)
);
CREATE TABLE "experiment_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value TEXT, 
	experiment_id INTEGER NOT NULL, 
	CONSTRAINT experiment_tag_pk PRIMARY KEY ("key", experiment_id), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
INSERT INTO "experiment_tags" VALUES('grpo.job','1',1);
CREATE TABLE "experiments" (
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	artifact_location VARCHAR(256), 
	lifecycle_stage VARCHAR(32), 
	creation_time BIGINT, 
	last_update_time BIGINT, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), 
	CONSTRAINT experiments_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT uq_experiments_workspace_name UNIQUE (workspace, name)
);
INSERT INTO "experiments" VALUES(0,'Default','{folder}/mlruns/0','active',1795611417944,1795611417944,'default');
INSERT INTO "experiments" VALUES(1,'grpo','file://{folder}/mlruns/grpo','active',1795611417986,1795611417986,'default');
INSERT INTO "experiments" VALUES(2,'grpo-promotions','file://{folder}/mlruns/grpo/promotions','active',1795611480861,1795611480861,'default');
CREATE TABLE guardrail_configs (
	endpoint_id VARCHAR(36) NOT NULL, 
	guardrail_id VARCHAR(36) NOT NULL, 
	execution_order INTEGER, 
	created_by VARCHAR(255), 
	created_at BIGINT NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT guardrail_configs_pk PRIMARY KEY (endpoint_id, guardrail_id), 
	CONSTRAINT fk_guardrail_configs_endpoint_id FOREIGN KEY(endpoint_id) REFERENCES endpoints (endpoint_id) ON DELETE CASCADE, 
	CONSTRAINT fk_guardrail_configs_guardrail_id FOREIGN KEY(guardrail_id) REFERENCES guardrails (guardrail_id) ON DELETE CASCADE
);
CREATE TABLE guardrails (
	guardrail_id VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	scorer_id VARCHAR(36) NOT NULL, 
	scorer_version INTEGER NOT NULL, 
	stage VARCHAR(32) NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	action_endpoint_id VARCHAR(36), 
	created_by VARCHAR(255), 
	created_at BIGINT NOT NULL, 
	last_updated_by VARCHAR(255), 
	last_updated_at BIGINT NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT guardrails_pk PRIMARY KEY (guardrail_id), 
	CONSTRAINT fk_guardrails_scorer_version FOREIGN KEY(scorer_id, scorer_version) REFERENCES scorer_versions (scorer_id, scorer_version), 
	CONSTRAINT fk_guardrails_action_endpoint_id FOREIGN KEY(action_endpoint_id) REFERENCES endpoints (endpoint_id) ON DELETE SET NULL
);
CREATE TABLE input_tags (
	input_uuid VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	value VARCHAR(500) NOT NULL, 
	CONSTRAINT input_tags_pk PRIMARY KEY (input_uuid, name)
);
INSERT INTO "input_tags" VALUES('a95e52d734be42bf934b72256eeee749','mlflow.data.context','training');
CREATE TABLE inputs (
	input_uuid VARCHAR(36) NOT NULL, 
	source_type VARCHAR(36) NOT NULL, 
	source_id VARCHAR(36) NOT NULL, 
	destination_type VARCHAR(36) NOT NULL, 
	destination_id VARCHAR(36) NOT NULL, step BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT inputs_pk PRIMARY KEY (source_type, source_id, destination_type, destination_id)
);
INSERT INTO "inputs" VALUES('a95e52d734be42bf934b72256eeee749','DATASET','8d8b4d1e2bd04e03b08c0982f164697d','RUN','ef29d2f0fb3447ad947a8db17877ef6d',0);
INSERT INTO "inputs" VALUES('6cac383b065f4e0cb1e00d1edd11433f','RUN_OUTPUT','ef29d2f0fb3447ad947a8db17877ef6d','MODEL_OUTPUT','m-1200a5d974fa471ca981613cccd64506',2000);
CREATE TABLE issues (
	issue_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	description TEXT NOT NULL, 
	status VARCHAR(50) NOT NULL, 
	severity VARCHAR(50), 
	root_causes TEXT, 
	source_run_id VARCHAR(32), 
	categories TEXT, 
	created_timestamp BIGINT NOT NULL, 
	last_updated_timestamp BIGINT NOT NULL, 
	created_by VARCHAR(255), 
	CONSTRAINT issues_pk PRIMARY KEY (issue_id), 
	CONSTRAINT fk_issues_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE, 
	CONSTRAINT fk_issues_source_run_id FOREIGN KEY(source_run_id) REFERENCES runs (run_uuid) ON DELETE SET NULL
);
CREATE TABLE "jobs" (
	id VARCHAR(36) NOT NULL, 
	creation_time BIGINT NOT NULL, 
	job_name VARCHAR(500) NOT NULL, 
	params TEXT NOT NULL, 
	timeout FLOAT, 
	status INTEGER NOT NULL, 
	result TEXT, 
	retry_count INTEGER NOT NULL, 
	last_update_time BIGINT NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, status_details JSON, creator VARCHAR(255), 
	CONSTRAINT jobs_pk PRIMARY KEY (id)
);
CREATE TABLE label_schemas (
	schema_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	type VARCHAR(16) NOT NULL, 
	instruction TEXT, 
	enable_comment BOOLEAN DEFAULT '0' NOT NULL, 
	input_type VARCHAR(32) NOT NULL, 
	input_config TEXT NOT NULL, 
	created_by VARCHAR(255), 
	created_time BIGINT NOT NULL, 
	last_update_time BIGINT NOT NULL, 
	is_default BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT label_schemas_pk PRIMARY KEY (schema_id), 
	CONSTRAINT fk_label_schemas_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE, 
	CONSTRAINT uq_label_schemas_exp_name UNIQUE (experiment_id, name)
);
CREATE TABLE "latest_metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT, 
	step BIGINT NOT NULL, 
	is_nan BOOLEAN NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT latest_metric_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "latest_metrics" VALUES('rollout/reward',5.23406542151905185278e+00,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('rollout/ep_rew_mean',6.03666666666666671412e+01,1795611480259,1715,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('rollout/ep_len_mean',6.03666666666666671412e+01,1795611480259,1715,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('rollout/degenerate_fraction',3.33333333333333314829e-01,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('train/policy_loss',-7.9433779631342214117e-03,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('train/value_loss',1.66008756582237333538e+03,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('train/entropy',5.33752574807121682454e-01,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('train/approx_kl',2.32367465893427516468e-03,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('train/clip_fraction',1.04166666666666660884e-02,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('train/grad_norm',1.17371154303336278079e-01,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('train/explained_variance',-7.29401769348891892974e-02,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('train/n_updates',380.0,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('time/total_timesteps',2000.0,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('time/time_elapsed',2.33159875869750976562e+00,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('time/fps',8.57780521858422503097e+02,1795611480259,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('eval/mean_reward',324.69,1795611480255,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('eval/std_reward',7.78075439787171347933e+01,1795611480255,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('eval/iqm',314.7,1795611480255,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('eval/ci_low',299.9385,1795611480255,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('eval/ci_high',330.7205,1795611480255,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('eval/mean_ep_length',324.69,1795611480255,2000,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('system/cpu_utilization_percentage',100.0,1795611480259,1715,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('system/system_memory_usage_megabytes',8603.48046875,1795611480259,1715,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('system/system_memory_usage_percentage',35.7,1795611480259,1715,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('system/trainer_cpu_percentage',6.9,1795611480259,1715,0,'ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "latest_metrics" VALUES('system/trainer_memory_megabytes',426.26953125,1795611480259,1715,0,'ef29d2f0fb3447ad947a8db17877ef6d');
CREATE TABLE logged_model_metrics (
	model_id VARCHAR(36) NOT NULL, 
	metric_name VARCHAR(500) NOT NULL, 
	metric_timestamp_ms BIGINT NOT NULL, 
	metric_step BIGINT NOT NULL, 
	metric_value FLOAT, 
	experiment_id INTEGER NOT NULL, 
	run_id VARCHAR(32) NOT NULL, 
	dataset_uuid VARCHAR(36), 
	dataset_name VARCHAR(500), 
	dataset_digest VARCHAR(36), 
	CONSTRAINT logged_model_metrics_pk PRIMARY KEY (model_id, metric_name, metric_timestamp_ms, metric_step, run_id), 
	CONSTRAINT fk_logged_model_metrics_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CONSTRAINT fk_logged_model_metrics_model_id FOREIGN KEY(model_id) REFERENCES logged_models (model_id) ON DELETE CASCADE, 
	CONSTRAINT fk_logged_model_metrics_run_id FOREIGN KEY(run_id) REFERENCES runs (run_uuid) ON DELETE CASCADE
);
CREATE TABLE logged_model_params (
	model_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	param_key VARCHAR(255) NOT NULL, 
	param_value TEXT NOT NULL, 
	CONSTRAINT logged_model_params_pk PRIMARY KEY (model_id, param_key), 
	CONSTRAINT fk_logged_model_params_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CONSTRAINT fk_logged_model_params_model_id FOREIGN KEY(model_id) REFERENCES logged_models (model_id) ON DELETE CASCADE
);
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'env_name','CartPole-v1');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'env_kwargs','{}');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'reward_function_type','optimized_cartpole');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'total_timesteps','2000');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'learning_rate','0.0003');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'learning_rate_schedule','constant');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'n_steps','32');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'batch_size','64');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'n_epochs','10');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'seed','1');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'gamma','0.99');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'num_groups','1');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'group_size','2');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'clip_range','0.3');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'ent_coef','0.0');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'kl_coef','0.0');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'reference_iterations','8');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'max_grad_norm','0.5');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'advantage','z_time');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'start_states','branch_worst');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'branch_probability','0.9');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'bootstrap','False');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'normalize_observations','True');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'net_arch','[64, 64]');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'eval_freq','0');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'n_eval_episodes','100');
INSERT INTO "logged_model_params" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'device','cpu');
CREATE TABLE logged_model_tags (
	model_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	tag_key VARCHAR(255) NOT NULL, 
	tag_value TEXT NOT NULL, 
	CONSTRAINT logged_model_tags_pk PRIMARY KEY (model_id, tag_key), 
	CONSTRAINT fk_logged_model_tags_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CONSTRAINT fk_logged_model_tags_model_id FOREIGN KEY(model_id) REFERENCES logged_models (model_id) ON DELETE CASCADE
);
INSERT INTO "logged_model_tags" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'grpo.model','policy');
INSERT INTO "logged_model_tags" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'grpo.model_name','older');
INSERT INTO "logged_model_tags" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'mlflow.modelVersions','[{"name":"older","version":1}]');
CREATE TABLE logged_models (
	model_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	artifact_location VARCHAR(1000) NOT NULL, 
	creation_timestamp_ms BIGINT NOT NULL, 
	last_updated_timestamp_ms BIGINT NOT NULL, 
	status INTEGER NOT NULL, 
	lifecycle_stage VARCHAR(32), 
	model_type VARCHAR(500), 
	source_run_id VARCHAR(32), 
	status_message VARCHAR(1000), 
	CONSTRAINT logged_models_pk PRIMARY KEY (model_id), 
	CONSTRAINT logged_models_lifecycle_stage_check CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT fk_logged_models_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE
);
INSERT INTO "logged_models" VALUES('m-1200a5d974fa471ca981613cccd64506',1,'older','file://{folder}/mlruns/grpo/models/m-1200a5d974fa471ca981613cccd64506/artifacts',1795611481114,1795611482617,2,'active','grpo-policy','ef29d2f0fb3447ad947a8db17877ef6d',NULL);
CREATE TABLE mcp_access_endpoints (
	id VARCHAR(36) NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	server_name VARCHAR(256) NOT NULL, 
	server_version VARCHAR(128), 
	server_alias VARCHAR(256), 
	url VARCHAR(2048) NOT NULL, 
	transport_type VARCHAR(32) DEFAULT 'streamable-http' NOT NULL, 
	created_by VARCHAR(256), 
	last_updated_by VARCHAR(256), 
	created_at BIGINT NOT NULL, 
	last_updated_at BIGINT NOT NULL, 
	CONSTRAINT mcp_access_endpoints_pk PRIMARY KEY (id), 
	CONSTRAINT mcp_access_endpoints_server_fkey FOREIGN KEY(workspace, server_name) REFERENCES mcp_servers (workspace, name) ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE mcp_server_aliases (
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	alias VARCHAR(256) NOT NULL, 
	version VARCHAR(128) NOT NULL, 
	CONSTRAINT mcp_server_aliases_pk PRIMARY KEY (workspace, name, alias), 
	CONSTRAINT mcp_server_aliases_server_fkey FOREIGN KEY(workspace, name) REFERENCES mcp_servers (workspace, name) ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE mcp_server_tags (
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	CONSTRAINT mcp_server_tags_pk PRIMARY KEY (workspace, name, "key"), 
	CONSTRAINT mcp_server_tags_server_fkey FOREIGN KEY(workspace, name) REFERENCES mcp_servers (workspace, name) ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE mcp_server_version_tags (
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	version VARCHAR(128) NOT NULL, 
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	CONSTRAINT mcp_server_version_tags_pk PRIMARY KEY (workspace, name, version, "key"), 
	CONSTRAINT mcp_server_version_tags_version_fkey FOREIGN KEY(workspace, name, version) REFERENCES mcp_server_versions (workspace, name, version) ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE mcp_server_versions (
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	version VARCHAR(128) NOT NULL, 
	version_major INTEGER NOT NULL, 
	version_minor INTEGER NOT NULL, 
	version_patch INTEGER NOT NULL, 
	version_prerelease_sort_key VARCHAR(512) NOT NULL, 
	server_json JSON NOT NULL, 
	status VARCHAR(20) DEFAULT 'draft' NOT NULL, 
	tools JSON, 
	source VARCHAR(512), 
	connect_options JSON, 
	created_by VARCHAR(256), 
	last_updated_by VARCHAR(256), 
	created_at BIGINT NOT NULL, 
	last_updated_at BIGINT NOT NULL, 
	CONSTRAINT mcp_server_versions_pk PRIMARY KEY (workspace, name, version), 
	CONSTRAINT mcp_server_versions_server_fkey FOREIGN KEY(workspace, name) REFERENCES mcp_servers (workspace, name) ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE mcp_servers (
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	display_name VARCHAR(256), 
	description TEXT, 
	icons JSON, 
	created_by VARCHAR(256), 
	last_updated_by VARCHAR(256), 
	created_at BIGINT NOT NULL, 
	last_updated_at BIGINT NOT NULL, 
	CONSTRAINT mcp_servers_pk PRIMARY KEY (workspace, name)
);
CREATE TABLE "metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	step BIGINT DEFAULT '0' NOT NULL, 
	is_nan BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "metrics" VALUES('rollout/reward',4.26081436069260277577e+00,1795611476937,'ef29d2f0fb3447ad947a8db17877ef6d',105,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',2.16666666666666678513e+01,1795611476937,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',2.16666666666666678513e+01,1795611476937,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.2875,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-8.52183103561401401881e-03,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('train/value_loss',3.20413540558093882289e+03,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('train/entropy',6.90130159589979363943e-01,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('train/approx_kl',1.52339447353385445266e-03,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('train/grad_norm',2.56414551121993072868e-01,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('train/explained_variance',4.44854108537381387478e-02,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('train/n_updates',20.0,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',97.0,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',2.34247922897338867187e-01,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('time/fps',4.14091185100971301844e+02,1795611476963,'ef29d2f0fb3447ad947a8db17877ef6d',97,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.15482959883174,1795611477147,'ef29d2f0fb3447ad947a8db17877ef6d',211,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',2.61111111111111107154e+01,1795611477147,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',2.61111111111111107154e+01,1795611477147,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',1.9620958751393535735e-01,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-1.86736824275606470846e-03,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('train/value_loss',1.55318053135868444766e+03,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('train/entropy',6.82371601982722175705e-01,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('train/approx_kl',2.96630699969162910795e-04,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('train/grad_norm',1.35997258952007066268e-01,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-7.95987401987548609527e-02,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('train/n_updates',50.0,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',203.0,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',4.067173004150390625e-01,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('time/fps',4.99118183054535563764e+02,1795611477149,'ef29d2f0fb3447ad947a8db17877ef6d',203,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.21112926256512132283e+00,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',25.4,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',254,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',25.4,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',254,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.203125,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-6.37421462880937653855e-03,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('train/value_loss',4.0053873161022793283e+03,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('train/entropy',6.85835083910063203482e-01,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('train/approx_kl',6.25859167627698057684e-04,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('train/grad_norm',2.48040682250622951388e-01,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('train/explained_variance',1.05487609410975791135e-01,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('train/n_updates',70.0,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',318.0,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',5.11861085891723632812e-01,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('time/fps',6.21262308788341897523e+02,1795611477240,'ef29d2f0fb3447ad947a8db17877ef6d',318,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.18105239086023239281e+00,1795611477351,'ef29d2f0fb3447ad947a8db17877ef6d',424,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',32.0,1795611477351,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',32.0,1795611477351,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.5,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-4.1679292917251586914e-03,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('train/value_loss',2.02711528221028606817e+03,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('train/entropy',6.85785025358200073242e-01,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('train/approx_kl',6.40220474451780319213e-04,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('train/grad_norm',1.15152144864641176047e-01,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-1.25381754460720196142e-01,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('train/n_updates',80.0,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',384.0,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',5.98992824554443359375e-01,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('time/fps',6.41076126889559532156e+02,1795611477353,'ef29d2f0fb3447ad947a8db17877ef6d',384,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.61271243795250907027e+00,1795611477500,'ef29d2f0fb3447ad947a8db17877ef6d',529,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',35.0,1795611477500,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',35.0,1795611477500,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',6.41025641025641107484e-02,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-6.13927199017433866679e-02,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('train/value_loss',2.16553672850919065248e+03,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('train/entropy',6.1914930867810624715e-01,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('train/approx_kl',8.21966029941401631064e-03,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('train/grad_norm',1.33253443428778983737e+00,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('train/explained_variance',1.35952433794671395661e-01,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('train/n_updates',110.0,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',499.0,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',7.6543331146240234375e-01,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('time/fps',6.51918321985011516538e+02,1795611477553,'ef29d2f0fb3447ad947a8db17877ef6d',499,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.41242705369525101133e+00,1795611477557,'ef29d2f0fb3447ad947a8db17877ef6d',635,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.34375,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-1.93832894617860969355e-02,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('train/value_loss',2.38888027609021264658e+03,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('train/entropy',5.54091952804826259892e-01,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('train/approx_kl',9.28339752716216687344e-03,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('train/grad_norm',3.03578938866976733024e-01,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-5.875056893916413836e-01,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('train/n_updates',130.0,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',579.0,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',8.54055881500244140625e-01,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('time/fps',6.7794158736185045201e+02,1795611477616,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',35.35,1795611477617,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',35.35,1795611477617,'ef29d2f0fb3447ad947a8db17877ef6d',579,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.24366809068453,1795611477747,'ef29d2f0fb3447ad947a8db17877ef6d',742,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',2.29166666666666657414e-01,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-3.20463696351418123042e-02,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('train/value_loss',2.71862071706821825504e+03,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('train/entropy',5.77038495927243655359e-01,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('train/approx_kl',5.87688159902353523394e-03,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('train/grad_norm',5.39788387665223856615e-01,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-1.56266887824999811673e-01,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('train/n_updates',150.0,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',680.0,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',0.993701696395874,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('time/fps',6.8430999208951686797e+02,1795611477807,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',3.67272727272727266272e+01,1795611477859,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',3.67272727272727266272e+01,1795611477859,'ef29d2f0fb3447ad947a8db17877ef6d',680,0);
INSERT INTO "metrics" VALUES('rollout/reward',3.83196633115973250838e+00,1795611477915,'ef29d2f0fb3447ad947a8db17877ef6d',847,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',2.54901960784313708074e-01,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-9.58119084437688249555e-03,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('train/value_loss',3.66946052811794152159e+03,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('train/entropy',0.619330730703142,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('train/approx_kl',1.08623963033240896608e-02,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',2.10813492063492043115e-02,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('train/grad_norm',1.81509736813254107801e-01,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('train/explained_variance',1.06505329901859981805e-02,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('train/n_updates',180.0,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',829.0,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.15820527076721191406e+00,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('time/fps',7.15762586239016513917e+02,1795611477917,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.36541733752916538691e+00,1795611477967,'ef29d2f0fb3447ad947a8db17877ef6d',953,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.0,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-2.35038995742797851562e-03,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('train/value_loss',4.96533241079665458531e+03,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('train/entropy',6.01580977439880371093e-01,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('train/approx_kl',1.7045592539943754673e-04,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('train/grad_norm',8.67446251278134738971e-02,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-2.69964276711034401046e-01,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('train/n_updates',190.0,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',893.0,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.21510219573974609375e+00,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('time/fps',7.34917608684220681437e+02,1795611477968,'ef29d2f0fb3447ad947a8db17877ef6d',893,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',39.875,1795611478051,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',39.875,1795611478051,'ef29d2f0fb3447ad947a8db17877ef6d',829,0);
INSERT INTO "metrics" VALUES('rollout/reward',3.52616317800475709276e+00,1795611478104,'ef29d2f0fb3447ad947a8db17877ef6d',1060,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',41.68,1795611478104,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',41.68,1795611478104,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.171875,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-2.61501338155496684811e-02,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('train/value_loss',3.75543441475524150522e+03,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('train/entropy',5.77879929317618334927e-01,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('train/approx_kl',2.08636422747008089262e-02,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',1.8867924528301888154e-01,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('train/grad_norm',4.07709631433322061688e-01,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-1.2841007236946822001e-01,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('train/n_updates',210.0,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1010.0,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.39277172088623046875e+00,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('time/fps',7.25172678949375722375e+02,1795611478131,'ef29d2f0fb3447ad947a8db17877ef6d',1010,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.23938026621176700103e+00,1795611478199,'ef29d2f0fb3447ad947a8db17877ef6d',1166,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',1.75000000000000016653e-01,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-0.0335355367925432,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('train/value_loss',2.34232553362962653406e+03,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('train/entropy',3.8100271688567266537e-01,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('train/approx_kl',0.0149846944026649,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',9.72222222222222098864e-02,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('train/grad_norm',5.48720198299918915374e-01,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('train/explained_variance',2.06105113697263558902e-01,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('train/n_updates',240.0,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1142.0,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.45528507232666015625e+00,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('time/fps',7.84725976865968505085e+02,1795611478259,'ef29d2f0fb3447ad947a8db17877ef6d',1142,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.74234502832388926663e+00,1795611478323,'ef29d2f0fb3447ad947a8db17877ef6d',1272,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.0,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-1.3614393770694732666e-02,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('train/value_loss',4.5600411275144160754e+03,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('train/entropy',4.99721765518188476562e-01,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('train/approx_kl',1.77426321897655725479e-03,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('train/grad_norm',2.78862981394325526451e-01,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('train/explained_variance',2.91732943847705650242e-02,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('train/n_updates',260.0,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1270.0,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.61984968185424804687e+00,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('time/fps',7.84023366011484654355e+02,1795611478325,'ef29d2f0fb3447ad947a8db17877ef6d',1270,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.80498058184545939752e+00,1795611478415,'ef29d2f0fb3447ad947a8db17877ef6d',1378,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.0,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-9.24744457006454467773e-03,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('train/value_loss',3.0392785677368610777e+03,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('train/entropy',5.88093996047973632812e-01,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('train/approx_kl',2.84664100036025047302e-03,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('train/grad_norm',1.65390571893382548607e-01,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-5.61287917020394377942e-02,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('train/n_updates',270.0,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1334.0,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.62322950363159179687e+00,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('time/fps',8.21818477926559808142e+02,1795611478417,'ef29d2f0fb3447ad947a8db17877ef6d',1334,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.75791287106536220363e+00,1795611478523,'ef29d2f0fb3447ad947a8db17877ef6d',1484,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.0,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-8.96261632442474365234e-03,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('train/value_loss',4.02088176568970675356e+03,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('train/entropy',5.20186334848403930664e-01,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('train/approx_kl',1.54843839118257164955e-03,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('train/grad_norm',0.175922552788701,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-1.42147866417254853388e-01,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('train/n_updates',290.0,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1462.0,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.7667522430419921875e+00,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('time/fps',8.27507085816814878884e+02,1795611478524,'ef29d2f0fb3447ad947a8db17877ef6d',1462,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.38156424444795788986e+00,1795611478589,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.0,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-1.18870772421360015869e-02,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('train/value_loss',2.16106508395109449347e+03,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('train/entropy',5.35227924585342407226e-01,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('train/approx_kl',2.56218353752046823501e-03,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('train/grad_norm',2.39666069428399186591e-01,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('train/explained_variance',9.16441219887734193072e-02,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('train/n_updates',310.0,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1590.0,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.886028289794921875e+00,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('time/fps',8.43041437184852270568e+02,1795611478655,'ef29d2f0fb3447ad947a8db17877ef6d',1590,0);
INSERT INTO "metrics" VALUES('rollout/reward',3.96122065183191951476e+00,1795611478657,'ef29d2f0fb3447ad947a8db17877ef6d',1696,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',5.10714285714285694001e+01,1795611478657,'ef29d2f0fb3447ad947a8db17877ef6d',1078,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',5.10714285714285694001e+01,1795611478657,'ef29d2f0fb3447ad947a8db17877ef6d',1078,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.0,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-5.01286834478378295898e-02,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('train/value_loss',1.38399988813733511956e+03,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('train/entropy',4.98661667108535766601e-01,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('train/approx_kl',3.64596545696258544921e-02,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.3125,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('train/grad_norm',7.65223668681069724151e-01,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-0.0809440448792238,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('train/n_updates',320.0,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1654.0,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',1.95303201675415039062e+00,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('time/fps',8.46888318169444119162e+02,1795611478729,'ef29d2f0fb3447ad947a8db17877ef6d',1654,0);
INSERT INTO "metrics" VALUES('rollout/reward',4.7309989028270091893e+00,1795611478845,'ef29d2f0fb3447ad947a8db17877ef6d',1801,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',1.61290322580645156813e-02,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-7.84338125959038734436e-03,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('train/value_loss',2.64240562199989108185e+03,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('train/entropy',5.13760652209891643948e-01,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('train/approx_kl',2.27063166380279748968e-02,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',2.04918032786885251361e-01,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('train/grad_norm',0.316037595177006,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-5.99509364513392539741e-02,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('train/n_updates',340.0,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1779.0,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',2.09478664398193359375e+00,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('time/fps',8.49251166036813287963e+02,1795611478885,'ef29d2f0fb3447ad947a8db17877ef6d',1779,0);
INSERT INTO "metrics" VALUES('rollout/reward',5.22503286355684171127e+00,1795611478981,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',0.0,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-1.46665424108505249023e-02,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('train/value_loss',2.76291921654355292041e+03,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('train/entropy',4.8538735508918762207e-01,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('train/approx_kl',0.00361816119402647,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',0.0078125,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('train/grad_norm',2.49762733933952846276e-01,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('train/explained_variance',4.43859479706208426286e-02,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('train/n_updates',360.0,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',1907.0,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',2.24344635009765625e+00,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('time/fps',8.50031470517219645433e+02,1795611479019,'ef29d2f0fb3447ad947a8db17877ef6d',1907,0);
INSERT INTO "metrics" VALUES('eval/mean_reward',324.69,1795611480255,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('eval/std_reward',7.78075439787171347933e+01,1795611480255,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('eval/iqm',314.7,1795611480255,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('eval/ci_low',299.9385,1795611480255,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('eval/ci_high',330.7205,1795611480255,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('eval/mean_ep_length',324.69,1795611480255,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('rollout/reward',5.23406542151905185278e+00,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('rollout/degenerate_fraction',3.33333333333333314829e-01,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('train/policy_loss',-7.9433779631342214117e-03,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('train/value_loss',1.66008756582237333538e+03,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('train/entropy',5.33752574807121682454e-01,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('train/approx_kl',2.32367465893427516468e-03,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('train/clip_fraction',1.04166666666666660884e-02,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('train/grad_norm',1.17371154303336278079e-01,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('train/explained_variance',-7.29401769348891892974e-02,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('train/n_updates',380.0,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('time/total_timesteps',2000.0,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('time/time_elapsed',2.33159875869750976562e+00,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('time/fps',8.57780521858422503097e+02,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',2000,0);
INSERT INTO "metrics" VALUES('rollout/ep_rew_mean',6.03666666666666671412e+01,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',1715,0);
INSERT INTO "metrics" VALUES('rollout/ep_len_mean',6.03666666666666671412e+01,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',1715,0);
INSERT INTO "metrics" VALUES('system/cpu_utilization_percentage',100.0,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',1715,0);
INSERT INTO "metrics" VALUES('system/system_memory_usage_megabytes',8603.48046875,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',1715,0);
INSERT INTO "metrics" VALUES('system/system_memory_usage_percentage',35.7,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',1715,0);
INSERT INTO "metrics" VALUES('system/trainer_cpu_percentage',6.9,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',1715,0);
INSERT INTO "metrics" VALUES('system/trainer_memory_megabytes',426.26953125,1795611480259,'ef29d2f0fb3447ad947a8db17877ef6d',1715,0);
CREATE TABLE "model_definitions" (
	model_definition_id VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	secret_id VARCHAR(36), 
	provider VARCHAR(64) NOT NULL, 
	model_name VARCHAR(256) NOT NULL, 
	created_by VARCHAR(255), 
	created_at BIGINT NOT NULL, 
	last_updated_by VARCHAR(255), 
	last_updated_at BIGINT NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_definitions_pk PRIMARY KEY (model_definition_id), 
	CONSTRAINT fk_model_definitions_secret_id FOREIGN KEY(secret_id) REFERENCES secrets (secret_id) ON DELETE SET NULL, 
	CONSTRAINT uq_model_definitions_workspace_name UNIQUE (workspace, name)
);
CREATE TABLE "model_version_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value TEXT, 
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_version_tag_pk PRIMARY KEY (workspace, "key", name, version), 
	CONSTRAINT fk_model_version_tags_model_versions FOREIGN KEY(workspace, name, version) REFERENCES model_versions (workspace, name, version) ON UPDATE CASCADE
);
INSERT INTO "model_version_tags" VALUES('grpo.card','{"action":{"kind":"discrete","n":2,"start":0},"config":{"advantage":"z_time","batch_size":64,"bootstrap":false,"branch_probability":0.9,"clip_range":0.3,"clip_range_high":null,"device":"cpu","ent_coef":0.0,"env_kwargs":{},"env_name":"CartPole-v1","eval_freq":0,"gamma":0.99,"group_size":2,"kl_coef":0.0,"learning_rate":0.0003,"learning_rate_schedule":"constant","max_grad_norm":0.5,"n_epochs":10,"n_eval_episodes":100,"n_steps":32,"net_arch":[64,64],"normalize_observations":true,"num_groups":1,"reference_iterations":8,"reward_function_type":"optimized_cartpole","seed":1,"start_states":"branch_worst","target_return":null,"total_timesteps":2000},"created_at":"2026-11-25T12:58:00+00:00","env_kwargs":{},"env_name":"CartPole-v1","environment_sha256":"8e066ea0e9984cbe2cee6b7fd2269ce311f0c6c04448c2f05d3a7b2c6d5307ec","evaluation":{"ci_high":330.7205,"ci_low":299.9385,"episodes":100,"iqm":314.7,"mean":324.69,"std":77.80754397871713},"git_commit":"1c00f8a837a1d0448fc8ee15b6a7681b7f679b9b","job_id":"ef29d2f0fb3447ad947a8db17877ef6d","observation_shape":[4],"seed":1,"timesteps":2000}','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.env_name','CartPole-v1','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.seed','1','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.git_commit','1c00f8a837a1d0448fc8ee15b6a7681b7f679b9b','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.eval_mean','324.69','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.model','policy','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.model_id','m-1200a5d974fa471ca981613cccd64506','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.files','{"MLmodel":"3394c30c62be3f4e2e5d22d7cc22d0371852951667dece6bbe40b8aad97bf4c8","code/grpo_policy_loader_v1.py":"be092d50976daaf7ebe6d4440e458fc79a6b2a6f9edcd129103f2278b5127a9b","conda.yaml":"13a1e262df7073e6826169e6ab056340dcad81f573c3ce4eaa5e1524df5bf55a","data/model.pt2":"e34a5a6d9a5c2b0fa8f42cd4f53044399c129d99f7b4bcfc08f3a62674c8a1a2","input_example.json":"47eee8d9735626cbd14c322cab5759e3b80dcbab41b9ddbb0f589299d4c34bad","policy/spec.json":"c896d017580f5af2f8d162f5820541b233f2899926208ad7a21d276f026f89dd","policy/weights.pt":"d344ce0e5a2155c674b99313126fc198f5721b112f5fcc292b14244102b03aeb","python_env.yaml":"7080f403c0a33bd4cf70693a77de41af1e4cca293053fd260b5ecfd7ba6a6ba4","requirements.txt":"9b258ca5422d71e8e5f2efb0ec8fc46d539d553fac939e8a488bd2c12d60e85a","serving_input_example.json":"d2d13c377c731e7a7958e3d8bd6a94553abf339da634166561852468601c0758"}','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.weights_sha256','d344ce0e5a2155c674b99313126fc198f5721b112f5fcc292b14244102b03aeb','older',1,'default');
INSERT INTO "model_version_tags" VALUES('grpo.verdict','promoted','older',1,'default');
CREATE TABLE "model_versions" (
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	user_id VARCHAR(256), 
	current_stage VARCHAR(20), 
	source VARCHAR(500), 
	run_id VARCHAR(32), 
	status VARCHAR(20), 
	status_message VARCHAR(500), 
	run_link VARCHAR(500), 
	storage_location VARCHAR(500), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_version_pk PRIMARY KEY (workspace, name, version), 
	CONSTRAINT fk_model_versions_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON UPDATE CASCADE
);
INSERT INTO "model_versions" VALUES('older',1,1795611482719,1795611482719,'GRPO policy for **CartPole-v1**, 2,000 timesteps, seed 1.

Return over 100 greedy episodes: mean 324.7 ± 77.8, IQM 314.7 (95 % interval 299.9 to 330.7).

Trained by run `ef29d2f0fb3447ad947a8db17877ef6d` at commit `1c00f8a837a1`.',NULL,'None','file://{folder}/mlruns/grpo/models/m-1200a5d974fa471ca981613cccd64506/artifacts','ef29d2f0fb3447ad947a8db17877ef6d','READY',NULL,NULL,'file://{folder}/mlruns/grpo/models/m-1200a5d974fa471ca981613cccd64506/artifacts','default');
CREATE TABLE online_scoring_configs (
	online_scoring_config_id VARCHAR(36) NOT NULL, 
	scorer_id VARCHAR(36) NOT NULL, 
	sample_rate FLOAT NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	filter_string TEXT, 
	CONSTRAINT online_scoring_config_pk PRIMARY KEY (online_scoring_config_id), 
	CONSTRAINT fk_online_scoring_configs_scorer_id FOREIGN KEY(scorer_id) REFERENCES scorers (scorer_id) ON DELETE CASCADE, 
	CONSTRAINT fk_online_scoring_configs_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "params" VALUES('env_name','CartPole-v1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('env_kwargs','{}','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('reward_function_type','optimized_cartpole','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('total_timesteps','2000','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('learning_rate','0.0003','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('learning_rate_schedule','constant','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('n_steps','32','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('batch_size','64','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('n_epochs','10','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('seed','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('gamma','0.99','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('num_groups','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('group_size','2','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('clip_range','0.3','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('clip_range_high','None','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('ent_coef','0.0','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('kl_coef','0.0','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('reference_iterations','8','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('max_grad_norm','0.5','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('advantage','z_time','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('start_states','branch_worst','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('branch_probability','0.9','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('bootstrap','False','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('normalize_observations','True','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('net_arch','[64, 64]','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('eval_freq','0','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('n_eval_episodes','100','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('target_return','None','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('device','cpu','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('model_name','older','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('promote','if_better','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('init_from','None','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('max_seconds','None','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('checkpoint_seconds','30.0','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('max_attempts','3','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('max_metric_points','20','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('claim.1','vm-44eb633c:3457:708431','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "params" VALUES('decision.000001','{"action":"train","actor":"job ef29d2f0fb3447ad947a8db17877ef6d","champion_after":1,"champion_before":null,"comparison":null,"decided_at":"2026-11-25T12:58:03.036+00:00","forced":false,"number":1,"reason":"The name had no champion.","rule":"if_better","verdict":"promoted","version":1}','0d1047bb833e4679a73dcc02bcbabbea');
CREATE TABLE "registered_model_aliases" (
	alias VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_alias_pk PRIMARY KEY (workspace, name, alias), 
	CONSTRAINT fk_registered_model_aliases_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON DELETE CASCADE ON UPDATE CASCADE
);
INSERT INTO "registered_model_aliases" VALUES('champion',1,'older','default');
CREATE TABLE "registered_model_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	name VARCHAR(256) NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_tag_pk PRIMARY KEY (workspace, "key", name), 
	CONSTRAINT fk_registered_model_tags_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON UPDATE CASCADE
);
INSERT INTO "registered_model_tags" VALUES('grpo.model','policy','older','default');
INSERT INTO "registered_model_tags" VALUES('grpo.env_name','CartPole-v1','older','default');
INSERT INTO "registered_model_tags" VALUES('grpo.env_kwargs','{}','older','default');
INSERT INTO "registered_model_tags" VALUES('grpo.decisions','0d1047bb833e4679a73dcc02bcbabbea','older','default');
INSERT INTO "registered_model_tags" VALUES('grpo.champion_eval','{"mean":"324.69","version":1}','older','default');
INSERT INTO "registered_model_tags" VALUES('grpo.decision_applied','1','older','default');
CREATE TABLE "registered_models" (
	name VARCHAR(256) NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_pk PRIMARY KEY (workspace, name)
);
INSERT INTO "registered_models" VALUES('older',1795611480972,1795611482719,'GRPO policies for CartPole-v1; the alias champion serves the bare name.','default');
CREATE TABLE review_queue_items (
	queue_id VARCHAR(36) NOT NULL, 
	item_type VARCHAR(16) NOT NULL, 
	item_id VARCHAR(50) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	completed_by VARCHAR(250), 
	completed_time_ms BIGINT, 
	creation_time_ms BIGINT NOT NULL, 
	last_update_time_ms BIGINT NOT NULL, 
	CONSTRAINT review_queue_items_pk PRIMARY KEY (queue_id, item_id), 
	CONSTRAINT fk_review_queue_items_queue_id FOREIGN KEY(queue_id) REFERENCES review_queues (queue_id) ON DELETE CASCADE
);
CREATE TABLE review_queue_label_schemas (
	queue_id VARCHAR(36) NOT NULL, 
	schema_id VARCHAR(36) NOT NULL, 
	CONSTRAINT review_queue_label_schemas_pk PRIMARY KEY (queue_id, schema_id), 
	CONSTRAINT fk_review_queue_label_schemas_queue_id FOREIGN KEY(queue_id) REFERENCES review_queues (queue_id) ON DELETE CASCADE
);
CREATE TABLE review_queue_users (
	queue_id VARCHAR(36) NOT NULL, 
	user_id VARCHAR(250) NOT NULL, 
	CONSTRAINT review_queue_users_pk PRIMARY KEY (queue_id, user_id), 
	CONSTRAINT fk_review_queue_users_queue_id FOREIGN KEY(queue_id) REFERENCES review_queues (queue_id) ON DELETE CASCADE
);
CREATE TABLE review_queues (
	queue_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	queue_type VARCHAR(16) NOT NULL, 
	created_by VARCHAR(255), 
	creation_time_ms BIGINT NOT NULL, 
	last_update_time_ms BIGINT NOT NULL, 
	name_key VARCHAR(250) NOT NULL, 
	CONSTRAINT review_queues_pk PRIMARY KEY (queue_id), 
	CONSTRAINT fk_review_queues_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE, 
	CONSTRAINT uq_review_queues_experiment_name_key UNIQUE (experiment_id, name_key)
);
CREATE TABLE "runs" (
	run_uuid VARCHAR(32) NOT NULL, 
	name VARCHAR(250), 
	source_type VARCHAR(20), 
	source_name VARCHAR(500), 
	entry_point_name VARCHAR(50), 
	user_id VARCHAR(256), 
	status VARCHAR(9), 
	start_time BIGINT, 
	end_time BIGINT, 
	source_version VARCHAR(50), 
	lifecycle_stage VARCHAR(20), 
	artifact_uri VARCHAR(200), 
	experiment_id INTEGER, deleted_time BIGINT, 
	CONSTRAINT run_pk PRIMARY KEY (run_uuid), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
INSERT INTO "runs" VALUES('ef29d2f0fb3447ad947a8db17877ef6d','CartPole-v1 seed 1','UNKNOWN','','','root','FINISHED',1795611429631,1795611483723,'','active','file://{folder}/mlruns/grpo/ef29d2f0fb3447ad947a8db17877ef6d/artifacts',1,NULL);
INSERT INTO "runs" VALUES('0d1047bb833e4679a73dcc02bcbabbea','promotions of older','UNKNOWN','','','unknown','FINISHED',1795611480896,1795611480942,'','active','file://{folder}/mlruns/grpo/promotions/0d1047bb833e4679a73dcc02bcbabbea/artifacts',2,NULL);
CREATE TABLE scorer_versions (
	scorer_id VARCHAR(36) NOT NULL, 
	scorer_version INTEGER NOT NULL, 
	serialized_scorer TEXT NOT NULL, 
	creation_time BIGINT, 
	CONSTRAINT scorer_version_pk PRIMARY KEY (scorer_id, scorer_version), 
	CONSTRAINT fk_scorer_versions_scorer_id FOREIGN KEY(scorer_id) REFERENCES scorers (scorer_id) ON DELETE CASCADE
);
CREATE TABLE scorers (
	experiment_id INTEGER NOT NULL, 
	scorer_name VARCHAR(256) NOT NULL, 
	scorer_id VARCHAR(36) NOT NULL, 
	CONSTRAINT scorer_pk PRIMARY KEY (scorer_id), 
	CONSTRAINT fk_scorers_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE
);
CREATE TABLE "secrets" (
	secret_id VARCHAR(36) NOT NULL, 
	secret_name VARCHAR(255) NOT NULL, 
	encrypted_value BLOB NOT NULL, 
	wrapped_dek BLOB NOT NULL, 
	kek_version INTEGER NOT NULL, 
	masked_value VARCHAR(500) NOT NULL, 
	provider VARCHAR(64), 
	auth_config TEXT, 
	description TEXT, 
	created_by VARCHAR(255), 
	created_at BIGINT NOT NULL, 
	last_updated_by VARCHAR(255), 
	last_updated_at BIGINT NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT secrets_pk PRIMARY KEY (secret_id), 
	CONSTRAINT uq_secrets_workspace_secret_name UNIQUE (workspace, secret_name)
);
CREATE TABLE span_metrics (
	trace_id VARCHAR(50) NOT NULL, 
	span_id VARCHAR(50) NOT NULL, 
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT, 
	CONSTRAINT span_metrics_pk PRIMARY KEY (trace_id, span_id, "key"), 
	CONSTRAINT fk_span_metrics_span FOREIGN KEY(trace_id, span_id) REFERENCES spans (trace_id, span_id) ON DELETE CASCADE
);
CREATE TABLE spans (
	trace_id VARCHAR(50) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	span_id VARCHAR(50) NOT NULL, 
	parent_span_id VARCHAR(50), 
	name TEXT, 
	type VARCHAR(500), 
	status VARCHAR(50) NOT NULL, 
	start_time_unix_nano BIGINT NOT NULL, 
	end_time_unix_nano BIGINT, 
	duration_ns BIGINT GENERATED ALWAYS AS (end_time_unix_nano - start_time_unix_nano) STORED, 
	content TEXT NOT NULL, dimension_attributes JSON, 
	CONSTRAINT spans_pk PRIMARY KEY (trace_id, span_id), 
	CONSTRAINT fk_spans_trace_id FOREIGN KEY(trace_id) REFERENCES trace_info (request_id) ON DELETE CASCADE, 
	CONSTRAINT fk_spans_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
ANALYZE "sqlite_master";
INSERT INTO "sqlite_stat1" VALUES('experiment_tags','sqlite_autoindex_experiment_tags_1','1 1 1');
INSERT INTO "sqlite_stat1" VALUES('workspaces','sqlite_autoindex_workspaces_1','1 1');
INSERT INTO "sqlite_stat1" VALUES('alembic_version','sqlite_autoindex_alembic_version_1','1 1');
INSERT INTO "sqlite_stat1" VALUES('experiments','idx_experiments_workspace_creation_time','2 2 1');
INSERT INTO "sqlite_stat1" VALUES('experiments','idx_experiments_workspace','2 2');
INSERT INTO "sqlite_stat1" VALUES('experiments','sqlite_autoindex_experiments_1','2 2 1');
CREATE TABLE "tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000), 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT tag_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "tags" VALUES('grpo.request','{"advantage":"z_time","batch_size":64,"bootstrap":false,"branch_probability":0.9,"checkpoint_seconds":30.0,"clip_range":0.3,"clip_range_high":null,"device":"cpu","ent_coef":0.0,"env_kwargs":{},"env_name":"CartPole-v1","eval_freq":0,"gamma":0.99,"group_size":2,"init_from":null,"kl_coef":0.0,"learning_rate":0.0003,"learning_rate_schedule":"constant","max_attempts":3,"max_grad_norm":0.5,"max_metric_points":20,"max_seconds":null,"model_name":"older","n_epochs":10,"n_eval_episodes":100,"n_steps":32,"net_arch":[64,64],"normalize_observations":true,"num_groups":1,"promote":"if_better","reference_iterations":8,"reward_function_type":"optimized_cartpole","seed":1,"start_states":"branch_worst","target_return":null,"total_timesteps":2000}','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.env/CartPole-v1','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.attempt','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.crashes','0','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.seed','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.packages','{"grpo-platform":"0.1.0","gymnasium":"1.4.0","mlflow":"3.16.1","numpy":"2.4.6","torch":"2.13.0+cpu"}','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.python','3.11.7','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.platform','Linux-6.18.44-fc-v669-x86_64-with-glibc2.36','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('mlflow.user','root','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('mlflow.source.git.commit','1c00f8a837a1d0448fc8ee15b6a7681b7f679b9b','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.git.dirty','true','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('mlflow.source.git.branch','w-ops','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.environment.spec','{"action":{"kind":"discrete","n":2,"start":0},"env_kwargs":{},"env_name":"CartPole-v1","family":"cartpole","max_episode_steps":500,"observation":{"high":[4.800000190734863,null,0.41887903213500977,null],"low":[-4.800000190734863,null,-0.41887903213500977,null],"shape":[4]},"reward_threshold":475.0}','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.environment.sha256','8e066ea0e9984cbe2cee6b7fd2269ce311f0c6c04448c2f05d3a7b2c6d5307ec','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.reproduce','mlflow run . --env-manager=local -P env_name=CartPole-v1 -P seed=1 -P total_timesteps=2000','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.creating','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('mlflow.runName','CartPole-v1 seed 1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.job','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.model/older','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.worker','vm-44eb633c:3457:708431','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.heartbeat','1795611482632','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('resume_exact','true','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.timesteps','2000','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.model','policy','0d1047bb833e4679a73dcc02bcbabbea');
INSERT INTO "tags" VALUES('grpo.model_name','older','0d1047bb833e4679a73dcc02bcbabbea');
INSERT INTO "tags" VALUES('mlflow.runName','promotions of older','0d1047bb833e4679a73dcc02bcbabbea');
INSERT INTO "tags" VALUES('mlflow.note.content','| # | when | version | verdict | who | why |
|---|---|---|---|---|---|
| 1 | 2026-11-25T12:58:03.036+00:00 | 1 | promoted | job ef29d2f0fb3447ad947a8db17877ef6d | The name had no champion. |','0d1047bb833e4679a73dcc02bcbabbea');
INSERT INTO "tags" VALUES('grpo.model_version','1','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.promoted','true','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('mlflow.note.content','**CartPole-v1: mean return 324.7** (IQM 314.7, 95 % interval 299.9 to 330.7) over 100 greedy episodes on the environment''s own reward.

Trained for 2,000 timesteps on the reward `optimized_cartpole`, seed 1.

![Learning curve](get-artifact?path=learning_curve.png&run_uuid=ef29d2f0fb3447ad947a8db17877ef6d)

Greedy episodes: [episodes.mp4](get-artifact?path=episodes.mp4&run_uuid=ef29d2f0fb3447ad947a8db17877ef6d)

```bash
# use the model, in any environment with mlflow, torch and numpy
python -c "import mlflow; print(mlflow.pyfunc.load_model(''models:/older/1''))"
# serve it by itself
mlflow models serve -m models:/older/1 --env-manager local --port 5001
# train the same again
git checkout 1c00f8a837a1d0448fc8ee15b6a7681b7f679b9b
# the checkout that trained it had further changes
mlflow run . --env-manager=local -P env_name=CartPole-v1 -P seed=1 -P total_timesteps=2000
```','ef29d2f0fb3447ad947a8db17877ef6d');
INSERT INTO "tags" VALUES('grpo.checkpoint','','ef29d2f0fb3447ad947a8db17877ef6d');
CREATE TABLE "trace_info" (
	request_id VARCHAR(50) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	timestamp_ms BIGINT NOT NULL, 
	execution_time_ms BIGINT, 
	status VARCHAR(50) NOT NULL, 
	client_request_id VARCHAR(50), 
	request_preview VARCHAR(1000), 
	response_preview VARCHAR(1000), 
	db_payload_generation INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT trace_info_pk PRIMARY KEY (request_id), 
	CONSTRAINT fk_trace_info_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE
);
CREATE TABLE trace_metrics (
	request_id VARCHAR(50) NOT NULL, 
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT, 
	CONSTRAINT trace_metrics_pk PRIMARY KEY (request_id, "key"), 
	CONSTRAINT fk_trace_metrics_request_id FOREIGN KEY(request_id) REFERENCES trace_info (request_id) ON DELETE CASCADE
);
CREATE TABLE "trace_request_metadata" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000), 
	request_id VARCHAR(50) NOT NULL, 
	CONSTRAINT trace_request_metadata_pk PRIMARY KEY ("key", request_id), 
	CONSTRAINT fk_trace_request_metadata_request_id FOREIGN KEY(request_id) REFERENCES trace_info (request_id) ON DELETE CASCADE
);
CREATE TABLE "trace_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000), 
	request_id VARCHAR(50) NOT NULL, 
	CONSTRAINT trace_tag_pk PRIMARY KEY ("key", request_id), 
	CONSTRAINT fk_trace_tags_request_id FOREIGN KEY(request_id) REFERENCES trace_info (request_id) ON DELETE CASCADE
);
CREATE TABLE webhook_events (
	webhook_id VARCHAR(256) NOT NULL, 
	entity VARCHAR(50) NOT NULL, 
	action VARCHAR(50) NOT NULL, 
	CONSTRAINT webhook_event_pk PRIMARY KEY (webhook_id, entity, action), 
	FOREIGN KEY(webhook_id) REFERENCES webhooks (webhook_id) ON DELETE cascade
);
CREATE TABLE "webhooks" (
	webhook_id VARCHAR(256) NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	description VARCHAR(1000), 
	url VARCHAR(500) NOT NULL, 
	status VARCHAR(20) DEFAULT 'ACTIVE' NOT NULL, 
	secret VARCHAR(1000), 
	creation_timestamp BIGINT, 
	last_updated_timestamp BIGINT, 
	deleted_timestamp BIGINT, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT webhook_pk PRIMARY KEY (webhook_id)
);
CREATE TABLE workspaces (
	name VARCHAR(63) NOT NULL, 
	description TEXT, 
	default_artifact_root TEXT, trace_archival_location TEXT, trace_archival_retention VARCHAR(32), 
	CONSTRAINT workspaces_pk PRIMARY KEY (name)
);
INSERT INTO "workspaces" VALUES('default','Default workspace for legacy resources',NULL,NULL,NULL);
CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid);
CREATE INDEX index_latest_metrics_run_uuid ON latest_metrics (run_uuid);
CREATE INDEX index_inputs_destination_type_destination_id_source_type ON inputs (destination_type, destination_id, source_type);
CREATE INDEX index_inputs_input_uuid ON inputs (input_uuid);
CREATE INDEX index_params_run_uuid ON params (run_uuid);
CREATE INDEX index_trace_tags_request_id ON trace_tags (request_id);
CREATE INDEX index_trace_request_metadata_request_id ON trace_request_metadata (request_id);
CREATE INDEX index_tags_run_uuid ON tags (run_uuid);
CREATE INDEX index_datasets_experiment_id_dataset_source_type ON datasets (experiment_id, dataset_source_type);
CREATE INDEX index_datasets_dataset_uuid ON datasets (dataset_uuid);
CREATE INDEX index_logged_model_metrics_model_id ON logged_model_metrics (model_id);
CREATE INDEX index_assessments_trace_id_created_timestamp ON assessments (trace_id, created_timestamp);
CREATE INDEX index_assessments_run_id_created_timestamp ON assessments (run_id, created_timestamp);
CREATE INDEX index_assessments_last_updated_timestamp ON assessments (last_updated_timestamp);
CREATE INDEX index_assessments_assessment_type ON assessments (assessment_type);
CREATE INDEX index_spans_experiment_id_status_type ON spans (experiment_id, status, type);
CREATE INDEX index_spans_experiment_id_type_status ON spans (experiment_id, type, status);
CREATE INDEX index_spans_experiment_id_duration ON spans (experiment_id, duration_ns);
CREATE INDEX index_entity_associations_association_id ON entity_associations (association_id);
CREATE INDEX index_entity_associations_reverse_lookup ON entity_associations (destination_type, destination_id, source_type, source_id);
CREATE INDEX idx_webhook_events_entity ON webhook_events (entity);
CREATE INDEX idx_webhook_events_action ON webhook_events (action);
CREATE INDEX idx_webhook_events_entity_action ON webhook_events (entity, action);
CREATE UNIQUE INDEX index_scorers_experiment_id_scorer_name ON scorers (experiment_id, scorer_name);
CREATE INDEX index_scorer_versions_scorer_id ON scorer_versions (scorer_id);
CREATE INDEX index_evaluation_dataset_tags_dataset_id ON evaluation_dataset_tags (dataset_id);
CREATE INDEX index_evaluation_dataset_records_dataset_id ON evaluation_dataset_records (dataset_id);
CREATE INDEX index_endpoint_model_mappings_endpoint_id ON endpoint_model_mappings (endpoint_id);
CREATE INDEX index_endpoint_model_mappings_model_definition_id ON endpoint_model_mappings (model_definition_id);
CREATE INDEX index_endpoint_tags_endpoint_id ON endpoint_tags (endpoint_id);
CREATE INDEX index_trace_metrics_request_id ON trace_metrics (request_id);
CREATE UNIQUE INDEX unique_endpoint_model_linkage_mapping ON endpoint_model_mappings (endpoint_id, model_definition_id, linkage_type);
CREATE INDEX index_span_metrics_trace_id_span_id ON span_metrics (trace_id, span_id);
CREATE INDEX index_evaluation_datasets_name ON evaluation_datasets (name);
CREATE INDEX index_evaluation_datasets_created_time ON evaluation_datasets (created_time);
CREATE INDEX idx_webhooks_status ON webhooks (status);
CREATE INDEX idx_webhooks_name ON webhooks (name);
CREATE TRIGGER prevent_secrets_aad_mutation
BEFORE UPDATE ON secrets
FOR EACH ROW
WHEN OLD.secret_id != NEW.secret_id OR OLD.secret_name != NEW.secret_name
BEGIN
    SELECT RAISE(ABORT, 'secret_id and secret_name are immutable (used as AAD in encryption)');
END;
CREATE INDEX index_model_definitions_secret_id ON model_definitions (secret_id);
CREATE INDEX index_model_definitions_provider ON model_definitions (provider);
CREATE INDEX index_jobs_name_status_creation_time ON jobs (job_name, workspace, status, creation_time);
CREATE INDEX idx_experiments_workspace ON experiments (workspace);
CREATE INDEX idx_registered_models_workspace ON registered_models (workspace);
CREATE INDEX idx_experiments_workspace_creation_time ON experiments (workspace, creation_time);
CREATE INDEX idx_evaluation_datasets_workspace ON evaluation_datasets (workspace);
CREATE INDEX idx_webhooks_workspace ON webhooks (workspace);
CREATE INDEX idx_secrets_workspace ON secrets (workspace);
CREATE INDEX idx_endpoints_workspace ON endpoints (workspace);
CREATE INDEX idx_model_definitions_workspace ON model_definitions (workspace);
CREATE INDEX idx_budget_policies_workspace ON budget_policies (workspace);
CREATE INDEX index_issues_experiment_id ON issues (experiment_id);
CREATE INDEX index_issues_source_run_id ON issues (source_run_id);
CREATE INDEX index_issues_status ON issues (status);
CREATE INDEX index_metrics_run_uuid_key_step ON metrics (run_uuid, "key", step);
CREATE INDEX idx_guardrails_workspace ON guardrails (workspace);
CREATE INDEX idx_guardrails_scorer ON guardrails (scorer_id, scorer_version);
CREATE INDEX idx_guardrail_configs_endpoint_id ON guardrail_configs (endpoint_id);
CREATE INDEX idx_guardrail_configs_guardrail_id ON guardrail_configs (guardrail_id);
CREATE INDEX idx_model_version_tags_workspace_name_version ON model_version_tags (workspace, name, version);
CREATE INDEX idx_registered_model_tags_workspace_name ON registered_model_tags (workspace, name);
CREATE INDEX index_label_schemas_experiment_id ON label_schemas (experiment_id);
CREATE INDEX index_review_queues_experiment_id ON review_queues (experiment_id);
CREATE INDEX index_review_queue_users_user_id ON review_queue_users (user_id);
CREATE INDEX index_review_queue_items_queue_id_status ON review_queue_items (queue_id, status);
CREATE INDEX index_review_queue_items_item_id ON review_queue_items (item_id);
CREATE INDEX index_review_queue_label_schemas_schema_id ON review_queue_label_schemas (schema_id);
CREATE INDEX idx_mcp_server_versions_latest ON mcp_server_versions (workspace, name, status, version_major DESC, version_minor DESC, version_patch DESC);
CREATE INDEX ix_mcp_access_endpoints_server_name ON mcp_access_endpoints (workspace, server_name);
CREATE INDEX ix_mcp_access_endpoints_version ON mcp_access_endpoints (workspace, server_name, server_version);
CREATE INDEX ix_mcp_access_endpoints_alias ON mcp_access_endpoints (workspace, server_name, server_alias);
CREATE INDEX index_spans_experiment_id_start_time ON spans (experiment_id, start_time_unix_nano);
CREATE INDEX idx_budget_policies_target_value ON budget_policies (target_value);
CREATE INDEX index_trace_info_experiment_id_timestamp_ms ON trace_info (experiment_id, timestamp_ms);
CREATE INDEX index_trace_info_timestamp_ms_request_id ON trace_info (timestamp_ms, request_id);
COMMIT;
