//! The integration tests: one binary over the built program, the shipped plugins, and the fixtures beside it.
//!
//! Everything that is run was built by cargo: the program by the call that built these tests, the plugins and fixtures
//! by nested calls, each once a process ([`built`]). Fixtures lie in `fixtures/`, recorded data in `data/`.

// What the tests run, and how: plugins and fixtures, the program, small corpora and runs.
mod built;
mod comparison;
mod corpus;
mod program;
mod skipped;
mod soak;

// Every way in which the loader refuses a file, with its whole line and exit code.
mod refusals;

// Plugins and hosts of other versions of the ABI: which of them load each other.
mod versions;

// What a plugin's panics, errors, wrong shapes and non-finite values do to a run.
mod errors;

// `train.on_error = "skip"`: failed steps are undone, and the run is the same as if their batches did not exist.
mod skips;

// AdamW through the boundary against PyTorch, against golden values, and against a plain implementation.
mod adamw;

// Replayed traces, plugins that are checked, and runs that are shown before they train.
mod proofs;

// A plugin that is made, built, tested and used outside the source tree.
mod plugin_new;

// The quickstart in small: prepare, train, evaluate, generate; twice the same to the bit.
mod quickstart;

// What holds for each shipped plugin: runs repeat to the byte, and the loss falls.
mod shipped;

// Runs that are stopped and resumed end with the bits of those that are not.
mod resume;

// Signals, grace, and readers that go away.
mod signals;

// Plugins that are tried before they are loaded, pinned, or end and hang a step.
mod probe;

// Disks that are full, read-only, slow to fail, or taken away.
mod storage;

// Processes that are killed while they save.
mod kills;

// Clocks that jump, few descriptors, and plugins that would grow.
mod surroundings;

// What a disk holds after a power loss.
mod power;

// Checkpoints that are damaged, missing, or of another run, and what is said of each.
mod resume_faults;

// Configurations that are wrong, layer by layer, and what is said of each.
mod config_faults;

// Data and tokenizers that are damaged, swapped, too large or half made.
mod data_faults;

// Curvature products and the spectrum at a checkpoint, and what is refused.
mod curvature;

// Comparisons: what is made, what is not made again, and what goes wrong.
mod compare;

// How their settings are chosen, also by `sweep`.
mod tuning;

// What a comparison leaves so that it can be made again.
mod capsules;

// Branches, and runs that begin with the parameters of others.
mod branches;

// The published study: its page says what its comparison holds.
mod study;

// Schedules, averages, and the three ways in which a run ends.
mod runs;

// `watch`: frames of real runs, and a terminal that is given back.
mod watch;

// Dashboards, alerts, and a real Prometheus over real runs.
mod monitoring;

// What the command line prints, and what it says of a bad configuration.
mod cli;

// Rules of the source tree: which module uses which, which crate depends on which.
mod layers;
