//! Every rule that a system file can break, by a stable name.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($name:ident $text:literal $meaning:literal,)*) => {
        /// A rule that a system file can break. Its text is stable, so that tools may rely on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its stable text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What it stands for, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

codes! {
    TooLarge "file-too-large" "The file is larger than 1 MiB.",
    TooMany "too-many" "More of a kind than one system may have.",
    NotUtf8 "not-utf8" "The file is not text in UTF-8.",
    Syntax "syntax" "The text is not TOML.",
    DuplicateName "duplicate-name" "A section or key stands in the file twice.",
    UnknownKey "unknown-key" "A key or section that does not exist.",
    WrongType "wrong-type" "A value of another kind than the key takes.",
    MissingSection "missing-section" "A section that every file needs is not there.",
    MissingKey "missing-key" "A key that its section needs is not there.",
    KeyWithoutEffect "key-without-effect" "A key that means nothing beside what else the section says.",
    InvalidName "invalid-name" "A name that cannot be a host label.",
    InvalidNumber "invalid-number" "A number outside the range its key takes.",
    InvalidDuration "invalid-duration" "A text that is not a duration.",
    InvalidAvailability "invalid-availability" "A text that is not an availability.",
    InvalidAddress "invalid-address" "A text that is not the IP address of a machine.",
    InvalidListen "invalid-listen" "A text that does not say where to listen.",
    InvalidPorts "invalid-ports" "A text that is not a range of ports, or a range too small.",
    InvalidSchedule "invalid-schedule" "A text that is not a schedule.",
    InvalidSize "invalid-size" "A text that is not an amount of memory, or one that is too small.",
    InvalidUrl "invalid-url" "A text that is not an address of the kind its key takes.",
    InvalidUser "invalid-user" "A text that cannot be an operating system user here.",
    InvalidIdentifier "invalid-identifier" "A text that cannot be the name of a PostgreSQL database or role here.",
    ReservedName "reserved-name" "The name of a database that PostgreSQL makes itself in every cluster.",
    InvalidCookie "invalid-cookie" "A text that cannot be the name of a cookie.",
    InvalidPath "invalid-path" "A path of the wrong form.",
    InvalidHost "invalid-host" "A text that cannot be the name of a host.",
    InvalidRange "invalid-range" "A text that is not a range of IP addresses.",
    InvalidImage "invalid-image" "A text that cannot be the name of an image.",
    InvalidEnvironment "invalid-environment" "A name that cannot be an environment variable.",
    EmptyCommand "empty-command" "A command without a program.",
    UnknownPlaceholder "unknown-placeholder" "A placeholder that does not exist or does not fit.",
    UnknownEngine "unknown-engine" "A database engine that does not exist.",
    UnknownWord "unknown-word" "A word that its key does not take.",
    UnknownSite "unknown-site" "A site that the file does not have.",
    UnknownNode "unknown-node" "A node that the file does not have.",
    UnknownService "unknown-service" "A service that the file does not have.",
    UnknownDatabase "unknown-database" "A database that the file does not have.",
    UnknownJob "unknown-job" "A job that the file does not have.",
    UnknownRoute "unknown-route" "A route that the file does not have.",
    DuplicateAddress "duplicate-address" "Two nodes, or two lines of a node, have one address, or a list names one twice.",
    MixedFamilies "mixed-families" "A line carries IPv4 on one node and IPv6 on another.",
    NoCommonLine "no-common-line" "Two nodes share no line, so that they can never talk.",
    EvenVoters "even-voters" "An even number of nodes votes.",
    SingleVoter "single-voter" "Only one node votes: when it is gone, nothing is decided any more.",
    ManyVoters "many-voters" "More voters than pay: each vote waits for a majority of them.",
    MajorityInOneSite "majority-in-one-site" "One site holds so many votes that nothing is decided without it.",
    DuplicatePort "duplicate-port" "Two routes listen in one place.",
    SharedListen "shared-listen" "Routes that share a place to listen but not what holds before one of them is chosen.",
    PortTaken "port-taken" "Two things of different kinds need one port of one node.",
    DuplicateMember "duplicate-member" "A node stands twice in a list of members.",
    WitnessMember "witness-member" "A member on a node that only votes.",
    WitnessService "witness-service" "A service pinned to nodes that only vote.",
    NowhereToRun "nowhere-to-run" "No node may run what the file wants to run.",
    TooFewMembers "too-few-members" "Fewer standbys than must confirm each write.",
    NoSpareStandby "no-spare-standby" "Writes stop while any one standby is away.",
    SameSite "same-site" "All members of a database stand in one site although there are others.",
    SiteLossStopsWrites "site-loss-stops-writes" "The loss of one site leaves too few members to go on without loss.",
    SingleCopy "single-copy" "A database or service without a second copy.",
    OwnedParameter "owned-parameter" "A PostgreSQL setting that Mainstay itself must control.",
    UnsafeParameter "unsafe-parameter" "A PostgreSQL setting that breaks the promised durability.",
    InvalidParameter "invalid-parameter" "A name or value that PostgreSQL's configuration cannot hold.",
    ImpossibleRpo "impossible-rpo" "A promised RPO that the durability of a database does not keep.",
    ImpossibleRto "impossible-rto" "A promised RTO that no fault can be repaired in.",
    ImpossibleAvailability "impossible-availability" "A promised availability that the nodes and sites cannot give.",
    StartCycle "start-cycle" "Services of which each waits for the next to be ready before it starts.",
    RouteTarget "route-target" "A route that leads nowhere, to two places, or back to itself.",
    NoSuchRole "no-such-role" "A route to standbys of a database that has none.",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
