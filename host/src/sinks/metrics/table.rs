//! The one table of all metrics of the host: name, type, unit, labels, meaning. docs/metrics.md is made from it.
//!
//! Names follow Prometheus: base units, the unit as suffix, counters end in `_total`. Counters count what this process
//! did, so that rates stay right over stops and resumes; where the run stands is told by gauges.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations by size, in [`BUCKETS`].
    Histogram,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Group of the documentation.
    pub group: &'static str,
    /// Full name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Unit; empty for a plain number.
    pub unit: &'static str,
    /// Labels beside `run`, each with its values; no values where they are open.
    pub labels: &'static [(&'static str, &'static [&'static str])],
    /// What it says, one sentence.
    pub help: &'static str,
}

/// Group of the metrics that exist only where the optimizer reports them.
pub const OPTIMIZER: &str = "Optimizer";

/// Prefix of the optimizer's other declared metrics.
pub const OPTIMIZER_PREFIX: &str = "gauntlet_optimizer_";

/// Upper bounds of a histogram's buckets, in seconds: from a millisecond to an hour.
pub const BUCKETS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0];

macro_rules! table {
    ($($group:tt {
        $($id:ident: $kind:ident $name:literal ($unit:literal) [$($label:literal = $($value:literal)*),*] $help:literal;)*
    })*) => {
        $($(
            #[doc = $help]
            pub static $id: Entry = Entry {
                group: $group,
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$(($label, &[$($value),*])),*],
                help: $help,
            };
        )*)*

        /// All metrics, by group.
        pub static TABLE: &[&Entry] = &[$($(&$id,)*)*];
    };
}

table! {
    "Run" {
        BUILD_INFO: Gauge "gauntlet_build_info" ("") ["version" =, "commit" =, "libtorch" =]
            "Always 1; the program and its libtorch";
        RUN_INFO: Gauge "gauntlet_run_info" ("")
            ["optimizer" =, "optimizer_sha256" =, "model" =, "dataset" =, "device" =, "seed" =, "timing" =]
            "Always 1; what is trained, hash and fingerprint by their first 12 digits, and whether times of phases are of \
             work that is done (synchronised) or may still be under way on a device (queued)";
        STATE: Gauge "gauntlet_run_state" ("")
            ["state" = "starting" "training" "evaluating" "checkpointing" "finished" "stopped" "failed"]
            "1 for the state that the run is in, else 0";
        START_TIMESTAMP: Gauge "gauntlet_start_timestamp_seconds" ("seconds") []
            "When this process began, in seconds since 1970";
        PARAMETERS: Gauge "gauntlet_model_parameters" ("parameters") [] "Elements of all parameters of the model";
        RESUMES: Counter "gauntlet_resumes_total" ("resumes") [] "1 if this process began at a checkpoint";
    }
    "Progress" {
        STEPS: Counter "gauntlet_steps_total" ("steps") [] "Steps that this process finished";
        TOKENS: Counter "gauntlet_tokens_total" ("tokens") ["purpose" = "step" "line_search"]
            "Tokens that this process drew, by what for";
        FLOPS: Counter "gauntlet_flops_total" ("flops") []
            "Floating-point operations of this process, by formula, a multiplication and an addition as two";
        CALLS: Counter "gauntlet_calls_total" ("calls") ["call" = "loss" "losses" "gradient" "squared_gradient"
            "fisher_vector_product" "linearize" "anchor_loss" "anchor_gradient" "jvp" "vjp" "ggn_vector_product"
            "quadratic" "prox_linear" "hessian_vector_product" "kronecker_factors" "gradient_weighted"
            "sequence_directional"]
            "Losses, gradients and products that the optimizer asked for in finished steps";
        RUN_STEPS: Gauge "gauntlet_run_steps" ("steps") [] "Finished steps of the run, over all its processes";
        RUN_TOKENS: Gauge "gauntlet_run_tokens" ("tokens") ["purpose" = "step" "line_search"]
            "Tokens that the run drew so far, over all its processes";
        RUN_FLOPS: Gauge "gauntlet_run_flops" ("flops") []
            "Floating-point operations of the run so far, over all its processes";
        RUN_GRADIENT_EQUIVALENTS: Gauge "gauntlet_run_gradient_equivalents" ("gradient equivalents") []
            "Floating-point operations of the run so far, in gradients of one global batch";
        TARGET_STEPS: Gauge "gauntlet_target_steps" ("steps") [] "Steps of the whole run; absent where it has no number";
        EPOCHS: Gauge "gauntlet_run_epochs" ("epochs") [] "Passes over the training data, with the fraction of the last";
        ETA: Gauge "gauntlet_eta_seconds" ("seconds") []
            "Time left at the present pace; absent where the run has no number of steps";
        LAST_STEP_TIMESTAMP: Gauge "gauntlet_last_step_timestamp_seconds" ("seconds") []
            "When the last step ended, in seconds since 1970";
    }
    "Learning" {
        TRAIN_LOSS: Gauge "gauntlet_train_loss_nats" ("nats") []
            "Training loss a token at the last step, before its update; NaN where it gave none";
        TRAIN_LOSS_EMA: Gauge "gauntlet_train_loss_ema_nats" ("nats") []
            "Exponential average of the training loss since this process began, 0.98 of the old each step";
        VAL_LOSS: Gauge "gauntlet_val_loss_nats" ("nats") [] "Last validation loss a token";
        BEST_VAL_LOSS: Gauge "gauntlet_best_val_loss_nats" ("nats") []
            "Least validation loss a token since this process began";
        RISING_EVALUATIONS: Gauge "gauntlet_rising_evaluations" ("evaluations") []
            "Evaluations in a row, the last one included, whose validation loss was above that before it";
        BITS_PER_BYTE: Gauge "gauntlet_val_bits_per_byte" ("") []
            "Last validation loss in bits a byte of text; only where it is known how many bytes the tokens stand for";
        LEARNING_RATE: Gauge "gauntlet_learning_rate" ("") []
            "Peak learning rate, the optimizer's key `lr`, times the schedule's multiplier; absent without that key";
        PARAM_NORM: Gauge "gauntlet_param_norm" ("") [] "Norm of all parameters after the last step";
        SCHEDULE: Gauge "gauntlet_schedule_multiplier_ratio" ("ratio") []
            "Multiplier of the learning rate at the last step, by the schedule";
        BATCH_TOKENS: Gauge "gauntlet_batch_tokens" ("tokens") [] "Predicted tokens of one step";
        EVALUATIONS: Counter "gauntlet_evaluations_total" ("evaluations") [] "Evaluations of the validation loss";
    }
    "Health" {
        SKIPPED: Counter "gauntlet_skipped_steps_total" ("steps") ["reason" = "nonfinite" "plugin"]
            "Steps that failed, were undone and had their batch passed over";
        REJECTED: Counter "gauntlet_rejected_steps_total" ("steps") []
            "Steps whose update the optimizer rejected by its own rule";
        NONFINITE: Counter "gauntlet_nonfinite_total" ("")
            ["where" = "loss" "gradient" "params" "plugin" "validation"]
            "Values that were not finite, by where: a step's loss, its gradient's norm, the parameters after it, inside \
             the plugin by its own word, the validation loss";
        LOSS_SPIKES: Counter "gauntlet_loss_spikes_total" ("spikes") []
            "Training losses more than six deviations above their average, both over about 50 steps; none in the first 50";
        PLUGIN_ERRORS: Counter "gauntlet_plugin_errors_total" ("errors") []
            "Steps that failed by an error or a panic of the plugin";
        LOG_LINES: Counter "gauntlet_log_lines_total" ("lines") ["level" = "error" "warn"]
            "Log lines of the plugin and of the host";
    }
    "Speed" {
        STEP_DURATION: Histogram "gauntlet_step_duration_seconds" ("seconds") []
            "Wall time of steps, without evaluations and checkpoints";
        PHASE_DURATION: Histogram "gauntlet_phase_duration_seconds" ("seconds")
            ["phase" = "data" "model" "optimizer" "eval" "checkpoint"]
            "Wall time of reading a step's data, during which nothing else happens, of its losses, gradients and products, \
             of its rest, of evaluations, of checkpoints";
        TOKENS_PER_SECOND: Gauge "gauntlet_tokens_per_second" ("tokens per second") []
            "Tokens drawn for the last step by its wall time";
        MFU: Gauge "gauntlet_mfu_ratio" ("ratio") []
            "Floating-point operations of the last step, by formula, by those that `metrics.peak_flops` would allow in its \
             time; only where that key is set";
    }
    "Memory and checkpoints" {
        RESIDENT_MEMORY: Gauge "gauntlet_process_resident_memory_bytes" ("bytes") []
            "Memory of this process now, as the system counts it";
        PEAK_MEMORY: Gauge "gauntlet_process_resident_memory_peak_bytes" ("bytes") []
            "Largest memory of this process so far";
        MEMORY_LIMIT: Gauge "gauntlet_memory_limit_bytes" ("bytes") []
            "Memory that this process can have: the machine's, or the limit of its control group where that is less";
        STATE_BYTES: Gauge "gauntlet_declared_state_bytes" ("bytes") []
            "Memory that the optimizer's state needs, as the plugin declares it";
        CHECKPOINTS: Counter "gauntlet_checkpoints_total" ("checkpoints") ["outcome" = "committed" "failed"]
            "Checkpoints of this process; one that fails ends the run, and earlier ones stay";
        CHECKPOINT_INTERVAL: Gauge "gauntlet_checkpoint_interval_seconds" ("seconds") []
            "Time between checkpoints, as configured; absent where there are none by time";
        CHECKPOINT_INTERVAL_STEPS: Gauge "gauntlet_checkpoint_interval_steps" ("steps") []
            "Steps between checkpoints, as configured; absent where there are none by steps";
        CHECKPOINT_TIMESTAMP: Gauge "gauntlet_last_checkpoint_timestamp_seconds" ("seconds") []
            "When the last checkpoint of this process was committed, in seconds since 1970";
        CHECKPOINT_STEPS: Gauge "gauntlet_last_checkpoint_steps" ("steps") [] "Finished steps in the last checkpoint";
        CHECKPOINT_SIZE: Gauge "gauntlet_checkpoint_size_bytes" ("bytes") [] "Bytes of the last checkpoint's files";
    }
    OPTIMIZER {
        GRADIENT_NORM: Gauge "gauntlet_gradient_norm" ("") [] "Norm of the gradient of the training loss";
        UPDATE_NORM: Gauge "gauntlet_update_norm" ("") [] "Norm of the update";
        UPDATE_PARAM_RATIO: Gauge "gauntlet_update_param_ratio" ("ratio") [] "Norm of the update by that of the parameters";
        UPDATE_GRADIENT_COSINE: Gauge "gauntlet_update_gradient_cosine" ("") []
            "Cosine of the angle between the update and the descent direction";
        DAMPING: Gauge "gauntlet_damping" ("") [] "Damping of the curvature matrix";
        INNER_ITERATIONS: Gauge "gauntlet_inner_iterations" ("iterations") [] "Iterations of the solver inside the step";
        INNER_ITERATIONS_LIMIT: Gauge "gauntlet_inner_iterations_limit" ("") []
            "Iterations after which that solver stops, solved or not";
        CG_RESIDUAL: Gauge "gauntlet_cg_residual_ratio" ("ratio") []
            "Residual of conjugate gradients by the right-hand side";
        REDUCTION: Gauge "gauntlet_reduction_ratio" ("ratio") []
            "Reduction of the loss by the reduction that the quadratic model predicts";
        LINE_SEARCH_STEP_SIZE: Gauge "gauntlet_line_search_step_size" ("") [] "Step size that the line search chose";
    }
}

/// The host's own metric for a name that an optimizer reports, if there is one: `damping` is `gauntlet_damping`.
pub fn well_known(name: &str) -> Option<&'static Entry> {
    let own = |entry: &&&Entry| entry.group == OPTIMIZER && entry.name.strip_prefix("gauntlet_") == Some(name);
    TABLE.iter().find(own).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let names: BTreeSet<_> = TABLE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for Entry { name, kind, unit, labels, .. } in TABLE.iter().copied() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.starts_with("gauntlet_") && name.chars().all(plain) && !name.contains("__"), "{name}");
            assert!(!name.starts_with(OPTIMIZER_PREFIX), "{name} may collide with a plugin's metric");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            for reserved in ["_bucket", "_sum", "_count"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
            let stem = name.trim_end_matches("_total");
            let suffix = unit.replace(' ', "_");
            assert!(unit.is_empty() || stem.ends_with(&format!("_{suffix}")), "{name} does not end with {unit}");
            for derived in ["milliseconds", "minutes", "hours", "kilobytes", "megabytes", "percent"] {
                assert!(!name.contains(derived), "{name} is not in a base unit");
            }
            assert!(labels.iter().all(|(label, _)| *label != "run" && *label != "le"), "{name}");
        }
    }

    #[test]
    fn every_entry_is_described_and_what_must_start_at_zero_can() {
        for Entry { name, kind, labels, help, .. } in TABLE.iter().copied() {
            assert!(help.len() > 15 && !help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
            let known = labels.len() <= 1 && labels.iter().all(|(_, values)| !values.is_empty());
            assert!(*kind == Kind::Gauge || known, "{name} has label values that are not known at the start");
        }
    }

    #[test]
    fn optimizers_share_the_well_known_names() {
        assert_eq!(well_known("damping"), Some(&DAMPING));
        assert_eq!(well_known("gradient_norm"), Some(&GRADIENT_NORM));
        assert_eq!((well_known("train_loss_nats"), well_known("lr")), (None, None));
    }
}
