//! Every section and key of the system file. These comments are the reference and the text that editors show.

use super::addresses::Addresses;
use super::table::table;
use super::values::{
    Address, DueTimes, DurabilityWord, Endpoint, EngineWord, HumanDuration, Memory, Number, Percent, Ports,
    ProtocolWord, RoleWord, Setting, Texts, Times,
};
use super::{At, Section};

table! {
    /// One application system: what it consists of and what is expected of it.
    #[schemars(title = "Mainstay system file", extend("required" = ["system", "nodes"]))]
    FileTable {
        /// The system itself.
        system: SystemTable,
        /// What is promised to the users. Every promise is checked against the rest of the file.
        objectives: ObjectivesTable,
        /// Data centres or rooms, by name. Without one that is no witness there is a site `main`.
        sites: Section<SiteTable>,
        /// Linux machines, by name.
        nodes: Section<NodeTable>,
        /// What agents use to agree. Without this section they need nothing but each other.
        coordination: CoordinationTable,
        /// PostgreSQL clusters, by name.
        databases: Section<DatabaseTable>,
        /// Stateless applications, by name.
        services: Section<ServiceTable>,
        /// Programs that run to their end, once in the whole system, when they are due or asked for; by name.
        jobs: Section<JobTable>,
        /// What clients connect to, by name. A route listens on every node outside witness sites.
        routes: Section<RouteTable>,
        /// Who hears of trouble.
        alarms: AlarmsTable,
        /// Backups, by the name of the database they save.
        backups: Section<BackupTable>,
    }
}

table! {
    /// The system itself.
    #[schemars(extend("required" = ["name"]))]
    SystemTable {
        /// The system's name. Like every name in the file it is a host label: lower-case letters, digits and `-`,
        /// beginning with a letter, at most 40 characters.
        name: String,
    }
}

table! {
    /// What is promised to the users.
    ObjectivesTable {
        /// The part of a year in which the system works. Nothing is promised without it.
        #[schemars(extend("examples" = ["99.99%"]))]
        availability: Percent,
        /// Recovery time objective: the longest outage that one fault may cause. At least one second.
        #[schemars(extend("default" = "5s"))]
        rto: HumanDuration,
        /// Recovery point objective: how old the oldest acknowledged write may be that one fault loses. `"0s"`: none is
        /// ever lost.
        #[schemars(extend("default" = "0s"))]
        rpo: HumanDuration,
    }
}

table! {
    /// A data centre or room.
    SiteTable {
        /// Its nodes only vote: no member of a database, no instance of a service, no route. It decides when two other
        /// sites cannot see each other.
        #[schemars(extend("default" = false))]
        witness: bool,
    }
}

table! {
    /// One Linux machine. It needs either `address` or `lines`.
    #[schemars(extend("oneOf" = [{ "required": ["address"] }, { "required": ["lines"] }]))]
    NodeTable {
        /// The site it stands in. May be left out when there is only one that is no witness.
        site: String,
        /// Its IPv4 or IPv6 address, for a node with one connection.
        #[schemars(extend("examples" = ["10.0.1.11"]))]
        address: Address,
        /// Its address on each of several lines, by the name of the line. Agents use all lines at once; what can only use
        /// one uses the first. Nodes that shall see each other need a line of the same name.
        #[schemars(extend("examples" = [{ "fibre": "10.0.1.11", "radio": "10.9.1.11" }]))]
        lines: Section<Address>,
        /// Whether it votes when agents agree. Unless said otherwise an odd number is chosen: all nodes of up to five
        /// (of four, three), else five, spread over the sites.
        voter: bool,
        /// The TCP port its agent listens on.
        #[schemars(extend("default" = 7432, "minimum" = 1, "maximum" = 65535))]
        agent_port: Number,
    }
}

table! {
    /// What agents use to agree.
    CoordinationTable {
        /// An etcd cluster that exists already, to be used instead of the agents' own votes.
        etcd: EtcdTable,
    }
}

table! {
    /// An etcd cluster, version 3.4 or newer.
    #[schemars(extend("required" = ["endpoints"]))]
    EtcdTable {
        /// The client URLs of its members.
        #[schemars(extend("examples" = [["https://10.0.1.21:2379", "https://10.0.2.21:2379"]]))]
        endpoints: Vec<At<String>>,
        /// PEM file with the authorities that signed its certificates. Needed for `https://`.
        ca: String,
        /// PEM file with the certificate to show. Needs `key`.
        certificate: String,
        /// PEM file with the private key of `certificate`.
        key: String,
    }
}

table! {
    /// A PostgreSQL cluster: one primary and its standbys.
    DatabaseTable {
        /// The engine.
        #[schemars(extend("default" = "postgres"))]
        engine: EngineWord,
        /// The nodes with a copy; the first one creates the database. Without it up to three nodes are chosen, spread over
        /// the sites.
        #[schemars(extend("examples" = [["e1", "e2", "w1"]]))]
        members: Vec<At<String>>,
        /// PostgreSQL's own port on its members. Clients use routes instead. Without it the first free port from 6432
        /// upwards is chosen.
        #[schemars(extend("minimum" = 1, "maximum" = 65535))]
        port: Number,
        /// `zero-loss`: an acknowledged write survives every failover, and writes wait rather than be at risk. `async`:
        /// writes wait for nobody, and a failover may lose the newest.
        #[schemars(extend("default" = "zero-loss"))]
        durability: DurabilityWord,
        /// With `durability = "async"`: a standby further behind than this is not promoted without an operator's word.
        #[schemars(extend("examples" = ["10s"]))]
        max_loss: HumanDuration,
        /// With `durability = "zero-loss"`: how many standbys must have flushed a write before it is acknowledged. Lower
        /// than the number of members.
        #[schemars(extend("default" = 1, "minimum" = 1))]
        sync: Number,
        /// Accept that all copies stand in one site although there are several.
        #[schemars(extend("default" = false))]
        allow_same_site: bool,
        /// PostgreSQL settings, by name; whether a change needs a reload or a rolling restart is found out. Settings that
        /// decide over durability or replication are refused.
        #[schemars(extend("examples" = [{ "shared_buffers": "2GB", "max_connections": 300 }]))]
        parameters: Section<Setting>,
        /// The directory with `postgres`, `initdb`, `pg_rewind` and the rest. Without it the newest installed version is
        /// used.
        #[schemars(extend("examples" = ["/usr/lib/postgresql/15/bin"]))]
        bin_dir: String,
        /// The operating system user PostgreSQL runs as; never root.
        #[schemars(extend("default" = "postgres"))]
        os_user: String,
        /// The application's database inside PostgreSQL. Without it the name of this section.
        dbname: String,
        /// The role that owns it and that the connection strings of routes use. Without it the name of this section.
        owner: String,
    }
}

table! {
    /// A stateless application. It needs `command`, `image` or `addresses`.
    #[schemars(extend("anyOf" = [{ "required": ["command"] }, { "required": ["image"] }, { "required": ["addresses"] }]))]
    ServiceTable {
        /// Program and arguments, with placeholders. A relative path is taken from the directory of this file.
        #[schemars(extend("examples" = [["./shop", "--listen", "{address}:{port}"]]))]
        command: Vec<At<String>>,
        /// The image from which its instances run, as containers of podman, or of docker on nodes without podman. They use the
        /// node's network and listen on `{port}` like programs; `command` then is what the image's entry point is given.
        /// Another image here replaces them one after another.
        #[schemars(extend("examples" = ["registry.example/shop:1.4.2"]))]
        image: String,
        /// Where others run it: requests are routed there, and every node's proxy asks each address for its `health` (without
        /// that section, for a TCP connection). Nobody starts, restarts or limits what answers there. Addresses below the
        /// name of a site are nearer to that site.
        #[schemars(extend("examples" = [["10.0.5.1:8080", "10.0.5.2:8080"], { "east": ["10.0.5.1:8080"], "west": ["10.0.6.1:8080"] }]))]
        addresses: Addresses,
        /// How many copies run.
        #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 1000))]
        instances: Number,
        /// Run only in these sites.
        #[schemars(extend("default" = []))]
        sites: Vec<At<String>>,
        /// Run only on these nodes.
        #[schemars(extend("default" = []))]
        nodes: Vec<At<String>>,
        /// The ports that instances get. Without it a free block of one hundred from 20000 upwards is chosen.
        #[schemars(extend("examples" = ["20000-20099"]))]
        ports: Ports,
        /// How a working instance is told from a broken one. Without it a TCP connection must succeed if the service uses
        /// `{port}`, else running is enough.
        health: HealthTable,
        /// Environment variables, with placeholders.
        #[schemars(extend("examples" = [{ "DATABASE_URL": "{route.orders-rw.dsn}" }]))]
        env: Section<String>,
        /// How long an instance may take to finish after SIGTERM before it is killed.
        #[schemars(extend("default" = "10s"))]
        stop_grace: HumanDuration,
        /// The operating system user it runs as when the agent is root. Without it `nobody`, with `image` whom that names.
        user: String,
        /// What its instances speak on their port: `http` is HTTP/1.1, `h2` is HTTP/2 without asking (as gRPC servers do),
        /// `tcp` is anything: connections are passed on as they are. `health.http` asks with HTTP/1.1 in any case.
        #[schemars(extend("default" = "http"))]
        protocol: ProtocolWord,
        /// With `protocol = "tcp"`: begin each connection with a PROXY header (version 2) that names the client.
        #[schemars(extend("default" = false))]
        send_proxy_protocol: bool,
        /// How requests are spread over its instances.
        traffic: TrafficTable,
        /// How an instance that may take requests is told from one that may not. An instance that is not ready gets no
        /// requests and runs on; with this section every bad answer to `health` counts as not living.
        ready: ReadyTable,
        /// The most memory that an instance with all it starts may use; the kernel ends it when it needs more. A node that
        /// cannot limit it says so in `mainstay status`.
        #[schemars(extend("examples" = ["512MiB"]))]
        memory: Memory,
        /// What must be ready before an instance starts: services by name (one ready instance is enough), databases as
        /// `database:NAME` (it takes writes). What runs already is not stopped, and a crashed instance does not wait again.
        #[schemars(extend("default" = [], "examples" = [["cache", "database:orders"]]))]
        after: Vec<At<String>>,
        /// Speak TLS with its instances, those of others too: with HTTP/2 where `protocol = "h2"`, else with HTTP/1.1.
        tls: InstanceTlsTable,
        /// What its releases need.
        release: ReleaseTable,
        /// Let the number of instances follow the load. Then `instances` is the least.
        scale: ScaleTable,
    }
}

table! {
    /// How the number of a service's instances follows its load, which is what all proxies have under way at them. More
    /// start within seconds, at most twice as many at a time; fewer run when that has been enough for the whole of
    /// `cool_down`, with a fifth to spare, at least half as many at a time. `mainstay scale` overrides it until `--undo`.
    #[schemars(extend("required" = ["max", "requests"]))]
    ScaleTable {
        /// The most instances. `instances` is the least.
        #[schemars(extend("minimum" = 2, "maximum" = 1000, "examples" = [6]))]
        max: Number,
        /// How many requests (of `protocol = "tcp"`, connections) one instance is to have under way at most, on average.
        #[schemars(extend("minimum" = 1, "maximum" = 1_000_000, "examples" = [40]))]
        requests: Number,
        /// For how long fewer instances must have been enough before one ends. At least 1 s.
        #[schemars(extend("default" = "1m"))]
        cool_down: HumanDuration,
    }
}

table! {
    /// How proxies recognise instances that speak TLS. An instance whose certificate does not prove this gets no request, and
    /// `mainstay status` says so. Where agents run the instances, their `health` and `ready` ask without TLS, so that these
    /// take `tcp` or `command`.
    #[schemars(extend("required" = ["ca"]))]
    InstanceTlsTable {
        /// PEM file with the authorities that sign the certificates of instances, on every node; read again when it changes.
        #[schemars(extend("examples" = ["/etc/shop/instances.pem"]))]
        ca: String,
        /// The name that these certificates are for. Without it the address of each instance.
        #[schemars(extend("examples" = ["web.internal"]))]
        name: String,
    }
}

table! {
    /// What the releases of a service need. Only for services whose command or environment names `{release}`.
    ReleaseTable {
        /// A job, such as a migration. One run of it, from the new release, must succeed before anything else of the release
        /// happens; if it fails or takes longer than its `timeout`, the release is not begun. Going back to an earlier
        /// release runs none.
        #[schemars(extend("examples" = ["migrate"]))]
        before: String,
    }
}

table! {
    /// How requests are spread over the instances of a service. Each node's proxy chooses for itself.
    TrafficTable {
        /// How much an instance takes beside the others, by the node it runs on, 1 to 100. Nodes that are not named have 1.
        #[schemars(extend("examples" = [{ "e1": 4, "w1": 1 }]))]
        weights: Section<Number>,
        /// Whether a proxy prefers instances of its own site. Others take requests when those are loaded or failing.
        #[schemars(extend("default" = true))]
        prefer_site: bool,
        /// How long a new or returning instance takes to get its full share; it begins with a tenth.
        #[schemars(extend("default" = "5s"))]
        slow_start: HumanDuration,
        /// The name of a cookie that keeps a client at the instance that answered it first. The cookie's value is encrypted;
        /// every node's proxy understands it. A client whose instance is gone or stopping gets another one and a new cookie.
        #[schemars(extend("examples" = ["shop-instance"]))]
        sticky: String,
        /// The most requests that one node's proxy has under way at one instance. Without it any number. Upgraded connections
        /// (WebSocket) do not count.
        #[schemars(extend("minimum" = 1, "maximum" = 1_000_000, "examples" = [200]))]
        limit: Number,
        /// With `limit`: how many requests may wait in one node's proxy while every instance is at its limit. More are
        /// refused at once with status 503 and `Retry-After`.
        #[schemars(extend("default" = 100, "minimum" = 0, "maximum" = 100_000))]
        queue: Number,
        /// With `limit`: how long a request may wait so before it is refused. At least 10 ms.
        #[schemars(extend("default" = "1s"))]
        queue_wait: HumanDuration,
        /// The service keeps the `Idempotency-Key` of requests and carries out none twice: those that have one are sent again
        /// when an instance fails, like `GET`.
        #[schemars(extend("default" = false))]
        idempotency_keys: bool,
    }
}

table! {
    /// A program that runs to its end, once in the whole system for each time that it is due. It never runs beside itself:
    /// times that pass meanwhile, or while no majority of the nodes is up, count as one.
    #[schemars(extend("required" = ["command"]))]
    JobTable {
        /// Program and arguments, with placeholders (all but `{port}`). A relative path is taken from the directory of this
        /// file. It ends with 0 when it has succeeded. `{release}` is the release for which it runs (a service names the job
        /// in `release.before`), else the one that serves.
        #[schemars(extend("examples" = [["./shop", "migrate", "{route.orders-rw.dsn}"]]))]
        command: Vec<At<String>>,
        /// When it is due, in UTC: `every 5m`, `hourly`, `daily HH:MM` or `weekly DAY HH:MM`. Without it only
        /// `mainstay job run NAME` starts it.
        #[schemars(extend("examples" = ["every 5m", "daily 03:00"]))]
        schedule: DueTimes,
        /// How long a run may take before it is ended (SIGTERM, 10 s later SIGKILL) and counts as failed.
        #[schemars(extend("default" = "1h"))]
        timeout: HumanDuration,
        /// Run it again when nobody can tell how a run ended, because its node was lost meanwhile. Only for programs that
        /// may run twice.
        #[schemars(extend("default" = false))]
        repeat_if_unknown: bool,
        /// Run only in these sites.
        #[schemars(extend("default" = []))]
        sites: Vec<At<String>>,
        /// Run only on these nodes.
        #[schemars(extend("default" = []))]
        nodes: Vec<At<String>>,
        /// Environment variables, with placeholders.
        #[schemars(extend("examples" = [{ "DATABASE_URL": "{route.orders-rw.dsn}" }]))]
        env: Section<String>,
        /// The most memory that a run may use, as for services.
        #[schemars(extend("examples" = ["512MiB"]))]
        memory: Memory,
        /// The operating system user it runs as when the agent is root. Without it `nobody`.
        user: String,
    }
}

table! {
    /// How a working instance is told from a broken one. At most one of `http`, `tcp` and `command`. One that is not healthy
    /// gets no requests; one that gives no answer at all for `restart_after` is ended and started again, and one that is
    /// stopped (SIGSTOP) after about a second.
    HealthTable {
        /// The path of a page that answers with a status from 200 to 399.
        #[schemars(extend("examples" = ["/healthz"]))]
        http: String,
        /// A TCP connection succeeds. `false`: running is enough.
        tcp: bool,
        /// Program and arguments, with placeholders, that ends with 0.
        command: Vec<At<String>>,
        /// Time from one question to the next. At least 50 ms.
        #[schemars(extend("default" = "500ms"))]
        interval: HumanDuration,
        /// No answer within this is a bad answer. At least 10 ms.
        #[schemars(extend("default" = "1s"))]
        timeout: HumanDuration,
        /// So many good answers in a row make it healthy.
        #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 100))]
        healthy_after: Number,
        /// So many bad answers in a row make it unhealthy.
        #[schemars(extend("default" = 2, "minimum" = 1, "maximum" = 100))]
        unhealthy_after: Number,
        /// An instance that worked and has not answered for this long is replaced. At least 1 s.
        #[schemars(extend("default" = "10s"))]
        restart_after: HumanDuration,
    }
}

table! {
    /// How an instance that may take requests is told from one that may not. At most one of `http`, `tcp` and `command`.
    ReadyTable {
        /// The path of a page that answers with a status from 200 to 399.
        #[schemars(extend("examples" = ["/ready"]))]
        http: String,
        /// A TCP connection succeeds.
        tcp: bool,
        /// Program and arguments, with placeholders, that ends with 0.
        command: Vec<At<String>>,
        /// Time from one question to the next. At least 50 ms.
        #[schemars(extend("default" = "500ms"))]
        interval: HumanDuration,
        /// No answer within this is a bad answer. At least 10 ms.
        #[schemars(extend("default" = "1s"))]
        timeout: HumanDuration,
        /// So many good answers in a row make it ready.
        #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 100))]
        healthy_after: Number,
        /// So many bad answers in a row make it not ready.
        #[schemars(extend("default" = 2, "minimum" = 1, "maximum" = 100))]
        unhealthy_after: Number,
    }
}

table! {
    /// What clients connect to. It leads either to a `service` or to a `database`.
    #[schemars(extend("required" = ["listen"], "oneOf" = [{ "required": ["service"] }, { "required": ["database"] }]))]
    RouteTable {
        /// Where it listens: `":8080"` for every address of a node, or an address with a port.
        #[schemars(extend("examples" = [":8080", "10.0.1.11:8080", "[fd00::1]:8080"]))]
        listen: Endpoint,
        /// The service it leads to, with HTTP or, where the service has `protocol = "tcp"`, as a connection.
        service: String,
        /// The database it leads to, with PostgreSQL's protocol.
        database: String,
        /// Which members of the database: the `primary`, a `standby`, or `any` that answers reads.
        #[schemars(extend("default" = "primary"))]
        target: RoleWord,
        /// How long a new connection to a database waits while there is no member to take it.
        #[schemars(extend("default" = "10s"))]
        park_limit: HumanDuration,
        /// How many connections may wait so on one node.
        #[schemars(extend("default" = 1000, "minimum" = 0, "maximum" = 100_000))]
        park_connections: Number,
        /// The host names it serves; `*.` stands for any labels before. Several routes to services may listen in one place
        /// when their hosts or paths tell them apart. Without it all that no other route there names.
        #[schemars(extend("examples" = ["shop.example", ["shop.example", "*.shop.example"]]))]
        host: Texts,
        /// Only requests whose path begins so, in whole segments: `/api` covers `/api/orders`, not `/apix`. Of several routes
        /// the one with the longest takes a request. The path is passed on as it came. Without it every path.
        #[schemars(extend("examples" = ["/api"]))]
        path: String,
        /// Serve HTTPS, with HTTP/2 and HTTP/1.1. Without it HTTP/1.1, and HTTP/2 to clients that begin with it.
        tls: TlsTable,
        /// Answer every request with 308 and the same address on this port of HTTPS, usually 443.
        #[schemars(extend("minimum" = 1, "maximum" = 65535, "examples" = [443]))]
        redirect_https: Number,
        /// What clients may ask of the proxy.
        limits: LimitsTable,
        /// HTML file shown with status 503 when no instance can answer; read again when it changes. Without it a sentence.
        #[schemars(extend("examples" = ["/etc/shop/maintenance.html"]))]
        maintenance: String,
        /// Addresses of proxies before this one, whose `X-Forwarded-*` and `Forwarded` are continued. What anybody else sends
        /// in them is thrown away.
        #[schemars(extend("examples" = [["10.0.0.0/8"]]))]
        trusted_proxies: Vec<At<String>>,
        /// Addresses of balancers that begin every connection with a PROXY header (version 1 or 2). From others such a header
        /// is not understood.
        #[schemars(extend("examples" = [["10.0.0.0/8"]]))]
        proxy_protocol: Vec<At<String>>,
        /// Write one of so many requests to `log/access.jsonl` below the node's root, and every one that failed. Without it
        /// none.
        #[schemars(extend("minimum" = 1, "maximum" = 1_000_000, "examples" = [1, 100]))]
        access_log: Number,
    }
}

table! {
    /// The certificate of a route. The files are read on every node and again when they change; a pair that does not fit
    /// leaves the former one in use.
    #[schemars(extend("required" = ["certificate", "key"]))]
    TlsTable {
        /// PEM file with the certificate, followed by those that vouch for it.
        #[schemars(extend("examples" = ["/etc/shop/tls.crt"]))]
        certificate: String,
        /// PEM file with the private key of `certificate`.
        #[schemars(extend("examples" = ["/etc/shop/tls.key"]))]
        key: String,
    }
}

table! {
    /// What clients of a route may ask of the proxy.
    LimitsTable {
        /// The most headers of a request; with more it is answered with 431.
        #[schemars(extend("default" = 128, "minimum" = 8, "maximum" = 1000))]
        headers: Number,
        /// The most bytes of a request's head.
        #[schemars(extend("default" = 32768, "minimum" = 8192, "maximum" = 65536))]
        header_bytes: Number,
        /// How long a head may take from its first byte to its last.
        #[schemars(extend("default" = "10s"))]
        header_timeout: HumanDuration,
        /// How long a connection may stay unused, or take nothing of what it is sent.
        #[schemars(extend("default" = "1m15s"))]
        idle_timeout: HumanDuration,
        /// How long a request's body may pause while no answer has begun. gRPC calls may pause as they like.
        #[schemars(extend("default" = "30s"))]
        body_timeout: HumanDuration,
    }
}

table! {
    /// Who hears of trouble.
    AlarmsTable {
        /// Addresses to tell: `https://`, `http://` or `mailto:`.
        #[schemars(extend("default" = [], "examples" = ["https://hooks.example/ops"]))]
        notify: Texts,
    }
}

table! {
    /// The backups of one database.
    #[schemars(extend("required" = ["repository"]))]
    BackupTable {
        /// Where they are kept: `s3://bucket/prefix` or `file:///directory`.
        #[schemars(extend("examples" = ["s3://bucket/shop", "file:///srv/backup"]))]
        repository: String,
        /// When a base backup is taken, in UTC: `hourly`, `daily HH:MM` or `weekly DAY HH:MM`.
        #[schemars(extend("default" = "daily 03:00"))]
        schedule: Times,
        /// How far back a restore must be possible.
        #[schemars(extend("default" = "30d"))]
        keep: HumanDuration,
    }
}
