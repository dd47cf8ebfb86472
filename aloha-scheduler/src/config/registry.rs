//! The one table of every configuration key.
//!
//! Reading, checking, `aloha config` and the table in the README all work from [`KEYS`]: a key exists if it stands here.

use std::time::Duration;

use super::value::{ByteUnit, Kind, TimeUnit};

/// One configuration key.
#[derive(Debug)]
#[non_exhaustive]
pub struct Key {
    /// Its full name, `aloha.…`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds where nobody sets it.
    pub default: Fallback,
    /// The environment variable that sets it too, if there is one.
    pub variable: Option<&'static str>,
    /// What it does, and why its default is what it is.
    pub meaning: &'static str,
}

/// What holds for a key that nobody set.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fallback {
    /// This text, read like any other value of the key.
    Text(&'static str),
    /// No value; the text says what that amounts to.
    Unset(&'static str),
    /// The first of these places whose environment variable is set, with the path below it; else the last path alone.
    Below {
        /// Variables and the paths below them, best first.
        places: &'static [(&'static str, &'static str)],
        /// The path where none of the variables is set.
        otherwise: &'static str,
    },
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TEN_YEARS: Duration = Duration::from_secs(3652 * 24 * 60 * 60);

const fn key(name: &'static str, kind: Kind, default: Fallback, meaning: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        variable: None,
        meaning,
    }
}

const fn text(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    key(name, kind, Fallback::Text(default), meaning)
}

impl Key {
    const fn or_variable(mut self, name: &'static str) -> Self {
        self.variable = Some(name);
        self
    }
}

const fn seconds(min: u64, max: Duration) -> Kind {
    Kind::Duration {
        unit: TimeUnit::Seconds,
        min: Duration::from_secs(min),
        max,
    }
}

const fn millis(min: u64, max: Duration) -> Kind {
    Kind::Duration {
        unit: TimeUnit::Milliseconds,
        min: Duration::from_millis(min),
        max,
    }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes {
        unit: ByteUnit::Bytes,
        min,
        max,
    }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const PORT: Kind = count(0, 65_535);

/// Every key that has a function, in the order in which it is shown.
pub static KEYS: &[Key] = &[
    text("aloha.master.host", Kind::Host, "127.0.0.1",
        "Address the master's RPC and REST servers listen on; loopback, because whoever reaches them can run commands.")
        .or_variable("ALOHA_MASTER_HOST"),
    text("aloha.master.port", PORT, "7077",
        "RPC port of the master, 0 for any free one; the port Spark standalone made known.")
        .or_variable("ALOHA_MASTER_PORT"),
    text("aloha.master.rest.enabled", Kind::Bool, "true",
        "Whether the master serves REST; on, because submitting with curl is the quickest way in.")
    ,
    text("aloha.master.rest.port", PORT, "6066",
        "REST port of the master, 0 for any free one; the port Spark's REST server uses."),
    key("aloha.master.rest.token.file", Kind::Path, Fallback::Unset("no token"),
        "File whose one line is the bearer token that every REST request must carry; needed beyond loopback."),
    text("aloha.master.rest.insecure", Kind::Bool, "false",
        "Whether REST may listen beyond loopback without a token; off, because it runs commands for whoever reaches it."),
    key("aloha.master.rest.allowedHosts", Kind::List, Fallback::Unset("only its own names"),
        "Further host names by which REST may be addressed, for instance that of a proxy; others are refused as DNS rebinding."),
    text("aloha.master.rest.connectionsMax", count(1, 1_000_000), "4096",
        "Connections to REST at once; for one more, the one is closed that has waited for its client the longest, a second at least, else the new one gets 503. Fewer where the process may not open so many files."),
    text("aloha.master.rest.requestsMax", count(1, 1_000_000), "1024",
        "Requests worked on at once, more get 503 and when to try again; far more than a disk is slow for, and each is done in milliseconds."),
    text("aloha.master.rest.longRequestsMax", count(1, 1_000_000), "2048",
        "Requests at once that wait for news, as long polls and output do, but never on more than half of connectionsMax; they cost little, and have places of their own lest they keep submissions out."),
    text("aloha.master.rest.headerBytesMax", bytes(1024, 1 << 20), "16k",
        "Largest first line and headers of a request together, more get 431; a token of 4 KiB and what proxies add fit in."),
    text("aloha.master.rest.headersMax", count(8, 4096), "100",
        "Most headers of a request, more get 431; clients send ten."),
    text("aloha.master.rest.headerTimeout", seconds(1, DAY), "10",
        "How long a client may take to send its headers from their first byte on, then 408; they are one packet."),
    text("aloha.master.rest.bodyBytesMax", bytes(1024, 1 << 30), "1m",
        "Largest body of a REST request; a submission is a few hundred bytes, a long script still fits."),
    text("aloha.master.rest.bodiesBytesMax", bytes(1024, 1 << 40), "64m",
        "What the bodies of all requests under way may hold together, more get 503; a hundred thousand submissions, or sixty of the largest."),
    text("aloha.master.rest.bodyTimeout", seconds(1, DAY), "30",
        "How long a client may take to send the body of its request, so that an idle one cannot hold a connection."),
    text("aloha.master.rest.answersBytesMax", bytes(1 << 20, 1 << 40), "256m",
        "What answers that wait for slow clients may hold together, those of up to 64 KiB aside; more get 503. Large answers are pages of a thousand applications and pieces of output, a megabyte each."),
    text("aloha.master.rest.idleTimeout", seconds(1, DAY), "75",
        "How long a connection may be open without a request; longer than the minute after which most proxies close theirs, so that none is closed under a request."),
    text("aloha.master.rest.writeTimeout", seconds(1, DAY), "30",
        "How long a client may take nothing of an answer that waits to be sent; silence while there is nothing to send does not count."),
    text("aloha.worker.host", Kind::Host, "127.0.0.1",
        "Address the worker listens on and the master reaches it by; loopback, as for the master."),
    text("aloha.worker.port", PORT, "0",
        "RPC port of the worker; 0 takes any free one, for nobody needs to know it beforehand.")
        .or_variable("ALOHA_WORKER_PORT"),
    key("aloha.worker.cores", count(1, 65_536), Fallback::Unset("all of the machine"),
        "Cores the worker offers; aloha.worker.limits.cpu says how applications are kept to theirs.")
        .or_variable("ALOHA_WORKER_CORES"),
    key("aloha.worker.memory",
        Kind::Bytes { unit: ByteUnit::Mebibytes, min: 1 << 20, max: 1 << 50 },
        Fallback::Unset("all of the machine but 1 GiB"),
        "Memory the worker offers, in MiB where no unit is given; aloha.worker.limits.memory keeps applications to theirs.")
        .or_variable("ALOHA_WORKER_MEMORY"),
    key("aloha.worker.attributes", Kind::Attributes, Fallback::Unset("nothing"),
        "What the worker is or has besides, such as zone=a,gpu; applications ask for it by constraints."),
    key("aloha.worker.dir", Kind::Path,
        Fallback::Below {
            places: &[("ALOHA_HOME", "work"), ("XDG_DATA_HOME", "aloha/work"), ("HOME", ".local/share/aloha/work")],
            otherwise: "work",
        },
        "Directory in which every application gets its own; not below /tmp, which machines empty at their leisure.")
        .or_variable("ALOHA_WORKER_DIR"),
    text("aloha.worker.timeout", seconds(1, DAY), "60",
        "Silence after which the master gives a worker up; after half of it the worker counts as disconnected. Workers report four times in it, so three losses are forgiven."),
    text("aloha.worker.killGrace", seconds(0, DAY), "10",
        "Time between asking an application to end (TERM) and ending it (KILL); enough for a JVM's shutdown hooks."),
    text("aloha.worker.cgroup.enabled", Kind::Bool, "true",
        "Whether each application is kept in a cgroup of its own where the kernel gives one; on, because it ends whatever an application started."),
    text("aloha.worker.limits.memory", Kind::Bool, "true",
        "Whether its cgroup kills processes of an application that uses more memory than it asked for; on, lest it takes that of others."),
    text("aloha.worker.limits.cpu", Kind::Word { accepted: &["share", "off", "quota"], later: &[] }, "share",
        "How the cores of an application count, by its cgroup: share divides processors where they are short, quota is a limit even where they idle."),
    text("aloha.worker.runner.timeout", seconds(1, Duration::from_secs(30 * 24 * 60 * 60)), "600",
        "How long an application runs on without its worker before it is ended; ten times aloha.worker.timeout, so that an upgrade or a repair fits in."),
    text("aloha.worker.stopWhenCutOff", Kind::Bool, "false",
        "Whether a worker that no master answers stops its supervised applications before a master may start them elsewhere; off, because most rather run on."),
    text("aloha.worker.register.backoff.initial", millis(10, DAY), "200ms",
        "First pause between two attempts of a worker to register; short, because a failover should cost seconds."),
    text("aloha.worker.register.backoff.max", millis(10, DAY), "10s",
        "Longest such pause, reached by doubling; a worker never gives up, and a returning master sees it this soon."),
    text("aloha.worker.retainedApplications", count(0, 1_000_000), "1000",
        "Ended applications a worker remembers, to answer questions about them."),
    text("aloha.worker.log.rollBytes", bytes(4096, 1 << 40), "16m",
        "Size at which a file of an application's output is closed and the next begun, half of bytesMax at the most; an editor still opens it."),
    text("aloha.worker.log.rollInterval", seconds(0, TEN_YEARS), "86400",
        "Age at which such a file is closed too if it holds something, 0 for never; a day is what people look for."),
    text("aloha.worker.log.bytesMax", bytes(8192, 1 << 50), "128m",
        "What is kept of each of the two outputs of an attempt, the oldest files go first; a chatty application cannot fill the disk."),
    text("aloha.worker.cleanup.enabled", Kind::Bool, "true",
        "Whether directories of ended applications are removed; on, because a disk that is full stops all others."),
    text("aloha.worker.cleanup.interval", seconds(1, TEN_YEARS), "1800",
        "Time between two such cleanings; a look at the directories costs little, and nothing is in a hurry."),
    text("aloha.worker.cleanup.appDataTtl", seconds(0, TEN_YEARS), "604800",
        "How long the directory of an ended application is kept once the master knows of its end; a week, to look into it after a weekend."),
    text("aloha.worker.cleanup.bytesMax", bytes(1 << 20, 1 << 60), "10g",
        "What the directories of ended applications may hold together, the oldest go first; the full output of forty, and little beside a disk."),
    text("aloha.dead.worker.persistence", count(0, 10_000), "15",
        "How many times aloha.worker.timeout the master still lists a dead worker, so that a person can see what was lost."),
    text("aloha.deploy.retainedApplications", count(0, 1_000_000), "200",
        "Ended applications the master remembers; older ones become unknown ids."),
    text("aloha.deploy.spreadOut", Kind::Bool, "true",
        "Whether applications go to the worker with most free cores, or else fill one worker after the other; on, because the work of each is then disturbed least."),
    key("aloha.deploy.tagLimits", Kind::TagLimits, Fallback::Unset("no limits"),
        "How many applications of a tag may run at once, as in etl=4,*=100, where * is all applications together; the others wait."),
    text("aloha.deploy.recoveryMode",
        Kind::Word { accepted: &["NONE", "FILESYSTEM", "ZOOKEEPER", "CUSTOM"], later: &[] }, "NONE",
        "Where the master keeps its state over a restart: NONE in memory alone, FILESYSTEM in a file of this machine, ZOOKEEPER on servers that several masters share, of which one leads, CUSTOM as a factory of your own program does."),
    key("aloha.deploy.recoveryMode.factory", Kind::Name, Fallback::Unset("no factory"),
        "Name of the factory of recovery mode CUSTOM, as the program that starts the master has given it."),
    key("aloha.deploy.recoveryDirectory", Kind::Path,
        Fallback::Below {
            places: &[("ALOHA_HOME", "recovery"), ("XDG_DATA_HOME", "aloha/recovery"), ("HOME", ".local/share/aloha/recovery")],
            otherwise: "recovery",
        },
        "Directory of the master's own in recovery mode FILESYSTEM; not below /tmp, which machines empty at their leisure."),
    key("aloha.deploy.zookeeper.url", Kind::Name, Fallback::Unset("no servers"),
        "Servers of recovery mode ZOOKEEPER with their ports and a chroot if there is one, as in h1:2181,h2:2181,h3:2181/chroot."),
    text("aloha.deploy.zookeeper.dir", Kind::Name, "/aloha",
        "Where the masters of one cluster keep their election and their state on ZooKeeper, below the chroot; made where it is missing."),
    text("aloha.deploy.zookeeper.sessionTimeout", seconds(1, DAY), "10s",
        "Silence after which ZooKeeper gives a master up and the next one leads; longer than a pause of its process, and within the servers' 2 to 20 ticks."),
    key("aloha.deploy.zookeeper.acl", Kind::List, Fallback::Unset("open"),
        "Who may do what with it: open (everybody everything), creator (who has the secrets of aloha.deploy.zookeeper.auth.file), or scheme:id:permissions with permissions of cdrwa."),
    key("aloha.deploy.zookeeper.auth.file", Kind::Path, Fallback::Unset("nobody in particular"),
        "File with lines of scheme:secret, as in digest:user:password, that say to ZooKeeper who a master is; the same for all masters, and readable by nobody else."),
    text("aloha.deploy.slowStoreAfter", millis(10, DAY), "5s",
        "How long submissions may wait to be stored before more are refused; a disk takes milliseconds, and clients should hear of one that hangs."),
    text("aloha.master.idempotency.ttl", seconds(1, TEN_YEARS), "86400",
        "How long an idempotency key is known after its first use, and for as long as its application is listed: clients ask again within hours, if at all."),
    text("aloha.master.idempotency.keysMax", count(0, 10_000_000), "100000",
        "Idempotency keys remembered of applications that are no longer listed, the first to go first; each takes about 300 bytes of memory."),
    key("aloha.extraListeners", Kind::List, Fallback::Unset("none"),
        "Who listens to what happens: log (a line for each event), command (runs aloha.listeners.command), and names that a program with a master of its own has given."),
    text("aloha.listeners.queueMax", count(1, 1_000_000), "10000",
        "Events that may wait for a listener, more are dropped for it and counted; a burst fits in, and ten megabytes at the most are held."),
    key("aloha.listeners.command", Kind::Path, Fallback::Unset("nothing"),
        "Executable that the listener command runs for each event: JSON on its standard input, the main things in ALOHA_EVENT variables."),
    text("aloha.listeners.command.timeout", millis(10, DAY), "30s",
        "How long that may take before it is killed; the next event waits meanwhile, so it is short."),
    text("aloha.port.maxRetries", count(0, 65_535), "16",
        "How many further ports are tried where one is in use; never where it was given by a flag."),
    key("aloha.rpc.advertisedHost", Kind::Host, Fallback::Unset("where it listens"),
        "Host name under which others reach this process where it differs from the one it listens on, as behind address translation or in a container; the port is the same."),
    text("aloha.rpc.askTimeout", millis(1, DAY), "60s",
        "How long an ask waits for its answer; long enough for a busy master, short enough that nobody hangs."),
    text("aloha.rpc.lookupTimeout", millis(1, DAY), "10s",
        "How long the search for a remote endpoint may take; it is one round trip, so silence means trouble."),
    text("aloha.rpc.connectTimeout", millis(1, DAY), "10s",
        "How long a TCP connection may take; the kernel's own limit of two minutes would stall a failover."),
    text("aloha.rpc.handshakeTimeout", millis(1, DAY), "5s",
        "How long a new peer may take to say who it is, so that strangers cannot hold connections open."),
    text("aloha.rpc.handshakes.max", count(1, 1_000_000), "1024",
        "Callers that may be connected without having said who they are; more are turned away, so that they cost little."),
    text("aloha.rpc.handshakes.perAddressMax", count(1, 1_000_000), "256",
        "How many of those may come from one host, so that it keeps no other out."),
    text("aloha.rpc.connectionsPerPeer", count(1, 64), "1",
        "Connections to one peer; one carries all there is unless large messages stand in the way of small ones."),
    text("aloha.rpc.reconnect.backoffMin", millis(0, DAY), "50ms",
        "How long a peer is left alone after a connection to it could not be made; doubled each time, less up to a half by chance."),
    text("aloha.rpc.reconnect.backoffMax", millis(0, DAY), "5s",
        "The longest time for which a peer is left alone; a peer that came back is seen this soon."),
    text("aloha.rpc.pingInterval", millis(0, DAY), "15s",
        "Silence after which a peer is asked whether it is there, 0 for never; a few bytes, so it may be short."),
    text("aloha.rpc.pingTimeout", millis(0, DAY), "10s",
        "How long a peer that was asked may go on being silent before its connection is given up, 0 for ever; longer than a pause of its process."),
    text("aloha.rpc.idleTimeout", millis(0, DAY), "0",
        "How long a connection may go unused before it is closed, 0 for ever; a connection costs little, and its way back is closed with it."),
    text("aloha.rpc.polling", millis(0, Duration::from_millis(1)), "0",
        "How long a connection looks for more before it waits, 0 for never; 50us spares an answer on the same machine the waking up, and costs a processor."),
    text("aloha.rpc.message.maxSize", bytes(1024, 1 << 31), "16m",
        "Largest message sent or accepted; memory is never reserved for a larger one."),
    text("aloha.rpc.inbox.messagesMax", count(1, 1 << 30), "65536",
        "Messages that may wait at one endpoint; a sender is refused, or waits, beyond it."),
    text("aloha.rpc.inbox.bytesMax", bytes(1024, 1 << 40), "64m",
        "Bytes of messages that may wait at one endpoint; what bounds memory where messages are large."),
    text("aloha.rpc.outbox.bytesMax", bytes(1024, 1 << 40), "64m",
        "Bytes that may wait for one peer; at least one message of aloha.rpc.message.maxSize must fit."),
    text("aloha.rpc.codec", Kind::Word { accepted: &["bincode", "postcard"], later: &[] }, "bincode",
        "Encoding of RPC messages; both ends must use the same one, else the handshake refuses the peer."),
];

/// Keys of the contract that have no function in this version yet.
pub(super) static LATER: &[&str] = &[];

/// Where a key stands in [`KEYS`].
pub(super) fn position(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

/// The known key nearest to an unknown one, where one is near enough to have been meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let known = || KEYS.iter().map(|key| key.name);
    let (distance, best) = known()
        .map(|known| (edit_distance(&lower, &known.to_lowercase()), known))
        .min()?;
    if distance <= (name.len() / 4).max(2) {
        return Some(best);
    }
    // A word may be left out: aloha.rest.port for aloha.master.rest.port.
    let longer = known().filter(|known| has_words(&known.to_lowercase(), &lower));
    longer.min_by_key(|known| known.len())
}

/// Whether these words, and the last as the last, stand in the key in this order.
fn has_words(key: &str, words: &str) -> bool {
    let mut of_key = key.rsplit('.').peekable();
    let mut words = words.rsplit('.').peekable();
    let same_end = words.peek() == of_key.peek();
    same_end && words.all(|word| of_key.any(|of_key| of_key == word))
}

/// Levenshtein's distance, row by row.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_default_is_a_valid_value() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(key.name.starts_with("aloha."), "{}", key.name);
            assert_eq!(position(key.name), Some(at));
            assert!(!LATER.contains(&key.name), "{}", key.name);
            assert!(key.meaning.ends_with('.'), "{}", key.name);
            if let Fallback::Text(default) = key.default {
                key.kind.parse(default).expect(key.name);
            }
        }
    }

    #[test]
    fn a_misspelt_key_is_recognised_and_a_strange_one_is_not() {
        assert_eq!(nearest("aloha.worker.timout"), Some("aloha.worker.timeout"));
        assert_eq!(
            nearest("aloha.rpc.asktimeout"),
            Some("aloha.rpc.askTimeout")
        );
        assert_eq!(
            nearest("aloha.master.rest.prot"),
            Some("aloha.master.rest.port")
        );
        assert_eq!(nearest("aloha.rest.port"), Some("aloha.master.rest.port"));
        assert_eq!(nearest("aloha.xylophone.quality.of.sound"), None);
    }
}
