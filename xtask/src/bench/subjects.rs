//! The list of what is measured, with its limits. docs/bench.md says what each key means.

use super::subject::{Against, Key, Of, Program, Side, Subject};

const fn host(name: &'static str) -> Side {
    Side { name, program: Program::Host }
}

const fn python(name: &'static str, file: &'static str) -> Side {
    Side { name, program: Program::Python(file) }
}

const fn limited(name: &'static str, of: Of, against: Against, limit: f64) -> Key {
    Key { name, of, against, limit: Some(limit) }
}

const fn stated(name: &'static str, of: Of, against: Against) -> Key {
    Key { name, of, against, limit: None }
}

/// Everything that is measured, in the order in which it is.
pub const SUBJECTS: &[Subject] = &[
    GRADIENT, ADAM, STEP, MEMORY, START, LISTENERS, SCRAPING, SAVING, PREPARING, LOADING, REPORTING, PRODUCTS,
    LAYERWISE, PEAK, PEAK_1024, PEAK_50K, MUON, SOAP,
];

const SECONDS: Of = Of("host", "seconds");

const GRADIENT: Subject = Subject {
    name: "gradient",
    sides: &[host("host"), python("eager", "gradient.py"), python("compile", "gradient.py")],
    keys: &[
        limited("gradient_over_torch_eager", SECONDS, Against::One(Of("eager", "seconds")), 1.0),
        stated("gradient_over_torch_compile", SECONDS, Against::One(Of("compile", "seconds"))),
    ],
};

const ADAM: Subject = Subject {
    name: "adam",
    sides: &[host("host"), python("torch", "adam.py")],
    keys: &[limited("adam_step_over_torch", SECONDS, Against::One(Of("torch", "seconds")), 1.3)],
};

const STEP: Subject = Subject {
    name: "step",
    sides: &[host("host")],
    keys: &[limited("adam_step_over_inline", Of("host", "plugin"), Against::One(Of("host", "inline")), 1.02)],
};

const MEMORY: Subject = Subject {
    name: "memory",
    sides: &[host("host"), python("torch", "memory.py")],
    keys: &[limited("train_peak_memory_over_torch", Of("host", "bytes"), Against::One(Of("torch", "bytes")), 1.0)],
};

const START: Subject = Subject {
    name: "start",
    sides: &[host("host")],
    keys: &[
        limited("plugin_load_over_5_ms", Of("host", "load"), Against::Number(5e-3), 1.0),
        limited("start_to_first_step_over_2_s", Of("host", "first_step"), Against::Number(2.0), 1.0),
    ],
};

const LISTENERS: Subject = Subject {
    name: "listeners",
    sides: &[host("host")],
    keys: &[limited("listeners_over_quickstart_step", Of("host", "hear"), Against::One(Of("host", "step")), 0.01)],
};

/// Both on one thread of one core, with the scrapes on the other.
const SCRAPING: Subject = Subject {
    name: "scraping",
    sides: &[host("host")],
    keys: &[limited("scraped_step_over_alone", Of("host", "scraped"), Against::One(Of("host", "alone")), 1.01)],
};

const SAVING: Subject = Subject {
    name: "saving",
    sides: &[host("host")],
    keys: &[
        stated("checkpoint_hold_over_copy", Of("host", "hold"), Against::One(Of("host", "copy"))),
        limited("checkpoint_save_over_dd", Of("host", "save"), Against::One(Of("host", "dd")), 2.0),
    ],
};

/// Seconds a megabyte of text.
const PREPARING: Subject = Subject {
    name: "preparing",
    sides: &[host("host")],
    keys: &[
        limited("bytes_prepared_over_4_mb_a_second", Of("host", "bytes"), Against::Number(1.0 / 4.0), 1.0),
        limited("learnt_bpe_prepared_over_2_mb_a_second", Of("host", "learnt"), Against::Number(1.0 / 2.0), 1.0),
        limited("llama3_split_prepared_over_2_mb_a_second", Of("host", "llama3"), Against::Number(1.0 / 2.0), 1.0),
        limited("gpt2_prepared_over_2_mb_a_second", Of("host", "gpt2"), Against::Number(1.0 / 2.0), 1.0),
        stated("prepared_on_all_threads_over_one", Of("host", "learnt_on_all"), Against::One(Of("host", "learnt"))),
    ],
};

const LOADING: Subject = Subject {
    name: "loading",
    sides: &[host("host")],
    keys: &[limited("batch_drawn_over_quickstart_step", Of("host", "draw"), Against::One(Of("host", "step")), 0.01)],
};

const REPORTING: Subject = Subject {
    name: "reporting",
    sides: &[host("host")],
    keys: &[
        limited("report_of_100_runs_over_5_s", Of("host", "report"), Against::Number(5.0), 1.0),
        limited("compare_report_of_100_runs_over_5_s", Of("host", "compare"), Against::Number(5.0), 1.0),
    ],
};

const QUADRATIC: Of = Of("host", "quadratic");
const HOST_GRADIENT: Against = Against::One(Of("host", "gradient"));

const PRODUCTS: Subject = Subject {
    name: "products",
    sides: &[
        host("host"),
        python("func", "products.py"),
        python("forward", "products.py"),
        python("curvlinops", "products.py"),
    ],
    keys: &[
        limited("quadratic_over_gradient", QUADRATIC, HOST_GRADIENT, 1.75),
        stated("quadratic_over_fused_gradient", QUADRATIC, Against::One(Of("host", "autograd"))),
        limited(
            "quadratic_over_best_peer",
            QUADRATIC,
            Against::Least(&[Of("func", "seconds"), Of("forward", "seconds"), Of("curvlinops", "seconds")]),
            0.9,
        ),
        limited("repeat_ggn_over_gradient", Of("host", "repeated_ggn"), HOST_GRADIENT, 1.45),
    ],
};

const LAYERWISE: Subject = Subject {
    name: "layerwise",
    sides: &[host("host")],
    keys: &[limited("layerwise_over_separate", Of("host", "layerwise"), Against::One(Of("host", "separate")), 0.36)],
};

/// Each in a process of its own, since the allocator keeps what a call has freed.
const PEAK_SIDES: &[Side] = &[host("gradient"), host("quadratic")];

const fn peak_key(name: &'static str, limit: f64) -> Key {
    limited(name, Of("quadratic", "bytes"), Against::One(Of("gradient", "bytes")), limit)
}

const PEAK: Subject =
    Subject { name: "peak", sides: PEAK_SIDES, keys: &[peak_key("quadratic_peak_memory_over_gradient", 1.5)] };

const PEAK_1024: Subject = Subject {
    name: "peak-1024",
    sides: PEAK_SIDES,
    keys: &[peak_key("quadratic_peak_memory_over_gradient_1024", 1.5)],
};

const PEAK_50K: Subject =
    Subject { name: "peak-50k", sides: PEAK_SIDES, keys: &[peak_key("quadratic_peak_memory_over_gradient_50k", 1.25)] };

const MUON: Subject = Subject {
    name: "muon",
    sides: &[host("host"), python("torch", "muon.py")],
    keys: &[limited("muon_step_over_torch", SECONDS, Against::One(Of("torch", "seconds")), 1.0)],
};

const SOAP: Subject = Subject {
    name: "soap",
    sides: &[host("host"), python("reference", "soap.py")],
    keys: &[limited("soap_step_over_reference", SECONDS, Against::One(Of("reference", "seconds")), 0.8)],
};
