//! The workloads: what they are called, how large they are, and what is asked of Aloha.

/// Something to be done by each contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// One-way messages of one producer, until all are processed.
    L1,
    /// One-way messages of four producers.
    L2,
    /// Asks, one after the other.
    L3,
    /// Asks of 1000 tasks, each asking in turn.
    L4,
    /// Endpoints that are set up, then stopped.
    L5,
    /// The resident memory of an idle endpoint.
    L5m,
    /// A token that goes round a ring of 1000 endpoints, each time with a new text.
    L6,
    /// One-way messages to another process over one connection, ended by an ask answered after them all.
    R1,
    /// Asks to another process, one after the other.
    R2,
    /// The same with both processes on one core, where no idle core has to wake up.
    R2p,
    /// Asks to another process of 64 tasks, each asking in turn.
    R3,
    /// Asks to another process of 1000 tasks.
    R4,
    /// Echoes of texts of 1 MiB, 8 under way.
    R5,
}

/// What the figures of a workload count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousands of operations a second.
    Thousands,
    /// Millions of bytes a second, one way.
    Megabytes,
    /// Bytes for each endpoint: the fewer the better.
    Bytes,
}

impl Unit {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Thousands => "thousands a second",
            Self::Megabytes => "MB a second, one way",
            Self::Bytes => "bytes, the fewer the better",
        }
    }

    /// Whether a larger figure is a better one.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        !matches!(self, Self::Bytes)
    }
}

/// What ours shall reach, divided by the best of the others in the same run.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// Ours divided by the best peer.
    pub to_peer: f64,
    /// Ours divided by the raw limit.
    pub to_limit: f64,
}

impl Workload {
    /// All of them, in order.
    pub const ALL: [Self; 13] = [
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L4,
        Self::L5,
        Self::L5m,
        Self::L6,
        Self::R1,
        Self::R2,
        Self::R2p,
        Self::R3,
        Self::R4,
        Self::R5,
    ];

    /// The workload of that name.
    #[must_use]
    pub fn called(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|workload| workload.name() == name)
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
            Self::L5 => "L5",
            Self::L5m => "L5m",
            Self::L6 => "L6",
            Self::R1 => "R1",
            Self::R2 => "R2",
            Self::R2p => "R2p",
            Self::R3 => "R3",
            Self::R4 => "R4",
            Self::R5 => "R5",
        }
    }

    /// What is done.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::L1 => "one-way messages of one producer",
            Self::L2 => "one-way messages of 4 producers",
            Self::L3 => "asks, one after the other",
            Self::L4 => "asks of 1000 tasks, each asking in turn",
            Self::L5 => "endpoints set up, then stopped",
            Self::L5m => "resident memory of an idle endpoint",
            Self::L6 => "a token round a ring of 1000 endpoints",
            Self::R1 => "one-way messages to another process",
            Self::R2 => "asks to another process, one after the other",
            Self::R2p => "the same, both processes on one core",
            Self::R3 => "asks to another process, 64 tasks",
            Self::R4 => "asks to another process, 1000 tasks",
            Self::R5 => "echoes of 1 MiB, 8 under way",
        }
    }

    /// How many operations it is in full.
    #[must_use]
    pub fn operations(self) -> u64 {
        match self {
            Self::L1 | Self::L2 | Self::L6 | Self::R1 => 1_000_000,
            Self::L3 => 200_000,
            Self::L4 | Self::R4 => 500_000,
            Self::L5 | Self::L5m => 100_000,
            Self::R2 => 20_000,
            Self::R2p => 50_000,
            Self::R3 => 300_000,
            Self::R5 => 1_000,
        }
    }

    /// What its figures count.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::L5m => Unit::Bytes,
            Self::R5 => Unit::Megabytes,
            _ => Unit::Thousands,
        }
    }

    /// Whether it takes two processes.
    #[must_use]
    pub fn is_remote(self) -> bool {
        self.name().starts_with('R')
    }

    /// What ours shall reach. R2 has none: it measures how fast the machine wakes an idle core.
    #[must_use]
    pub fn goal(self) -> Option<Goal> {
        let (to_peer, to_limit) = match self {
            Self::L1 => (1.19, 0.93),
            Self::L2 => (0.64, 0.67),
            Self::L3 => (1.12, 0.86),
            Self::L4 => (0.68, 1.21),
            Self::L5 => (0.58, 0.93),
            Self::L5m => (1.06, 1.38),
            Self::L6 => (0.66, 0.86),
            Self::R1 => (2.36, 0.63),
            Self::R2 => return None,
            Self::R2p => (2.19, 0.90),
            Self::R3 => (2.85, 0.91),
            Self::R4 => (5.34, 0.98),
            Self::R5 => (1.17, 0.94),
        };
        Some(Goal { to_peer, to_limit })
    }
}
