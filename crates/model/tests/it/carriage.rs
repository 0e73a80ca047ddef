//! How routes speak with clients and instances: what a file may say of it, and what `apply` makes of a change.

use model::system::{Code, Protocol, System, difference, parse};
use model::{RouteName, ServiceName};

use super::read_valid;

const BEGIN: &str = r#"
[system]
name = "shop"
[nodes.e1]
address = "10.0.1.11"
[nodes.e2]
address = "10.0.1.12"
[nodes.e3]
address = "10.0.1.13"
[databases.orders]
[services.web]
command = ["./shop", "{port}"]
instances = 2
[services.queue]
command = ["./queue", "{port}"]
instances = 2
protocol = "tcp"
send_proxy_protocol = true
"#;

fn read(text: &str) -> System {
    parse("x.toml", text.as_bytes()).unwrap_or_else(|invalid| panic!("{invalid}")).system
}

/// The codes that refuse these lines, in the order of the file, and all that is said.
fn refused(text: &str) -> (Vec<Code>, String) {
    let invalid = parse("x.toml", format!("{BEGIN}{text}").as_bytes()).unwrap_err();
    (invalid.problems.iter().map(|problem| problem.code).collect(), invalid.to_string())
}

#[test]
fn what_is_said_is_kept_and_survives_being_stored() {
    let mut system = read(&read_valid("carriage"));
    let stored = serde_json::to_string(&system).unwrap();
    assert_eq!(serde_json::from_str::<System>(&stored).unwrap(), system);
    let shop = &system.routes[&RouteName::from("shop")].carriage;
    assert_eq!(shop.hosts, ["shop.example", "*.shop.example"]);
    assert_eq!((shop.limits.headers, shop.access_log), (100, Some(100)));
    assert_eq!(
        shop.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "fd00::1/128"]
    );
    assert_eq!(system.routes[&RouteName::from("calls")].carriage.path.as_str(), "/calls");
    assert_eq!(system.routes[&RouteName::from("plain")].carriage.redirect_https, Some(8443));
    let queue = &system.services[&ServiceName::from("queue")];
    assert_eq!((queue.protocol, queue.send_proxy_protocol), (Protocol::Tcp, true));
    system.resolve_paths("/srv/shop".as_ref());
    let tls = system.routes[&RouteName::from("calls")].carriage.tls.clone().unwrap();
    assert_eq!(tls.certificate, std::path::Path::new("/srv/shop/tls.crt"));
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_hint() {
    let (codes, said) = refused(
        r#"
[routes.public]
listen = ":8080"
service = "web"
host = ["shop.example:8080", "*"]
path = "api"
tls = { certificate = "/etc/shop/tls.crt" }
redirect_https = 70000
maintenance = ""
trusted_proxies = ["10.0.0.0/33"]
access_log = 0
limits = { header_timeout = "1ms" }
"#,
    );
    use Code::{InvalidDuration, InvalidHost, InvalidNumber, InvalidPath, InvalidRange, MissingKey};
    let expected = [
        InvalidHost,
        InvalidHost,
        InvalidPath,
        MissingKey,
        InvalidNumber,
        InvalidPath,
        InvalidRange,
        InvalidNumber,
        InvalidDuration,
    ];
    assert_eq!(codes, expected, "{said}");
    assert!(said.contains("trusted_proxies = [\"10.0.0.0/8\"]"), "{said}");
}

#[test]
fn what_has_no_effect_is_refused() {
    let (codes, said) = refused(
        r#"
[services.other]
command = ["./other", "{port}"]
instances = 2
send_proxy_protocol = true
[routes.queue]
listen = ":9000"
service = "queue"
path = "/api"
tls = { certificate = "a", key = "b" }
[routes.orders]
listen = ":5432"
database = "orders"
host = "orders.example"
proxy_protocol = ["10.0.0.0/8"]
"#,
    );
    assert_eq!(codes, [Code::KeyWithoutEffect; 5], "{said}");
}

#[test]
fn routes_in_one_place_must_differ_and_agree() {
    let route = |name: &str, rest: &str| format!("[routes.{name}]\nlisten = \":8080\"\n{rest}\n");
    let web = |name: &str, rest: &str| route(name, &format!("service = \"web\"\n{rest}"));
    let tls = "tls = { certificate = \"/a\", key = \"/b\" }";
    read(&(BEGIN.to_owned() + &web("a", "") + &web("b", "path = \"/b\"") + &web("c", "host = \"c\"")));
    for (other, code) in [
        (web("b", ""), Code::DuplicatePort),
        (web("b", "path = \"/\""), Code::DuplicatePort),
        (web("b", "path = \"/b\"\nproxy_protocol = [\"::/0\"]"), Code::SharedListen),
        (web("b", "path = \"/b\"\nlimits.headers = 10"), Code::SharedListen),
        (web("b", &format!("path = \"/b\"\n{tls}")), Code::SharedListen),
        (route("b", "service = \"queue\""), Code::DuplicatePort),
        (route("b", "database = \"orders\""), Code::DuplicatePort),
    ] {
        let (codes, said) = refused(&(web("a", "") + &other));
        assert_eq!(codes, [code], "{other}\n{said}");
        assert!(said.contains('('), "a hint: {said}");
    }
}

#[test]
fn something_is_known_about_every_change_of_the_carriage() {
    let before = read(&read_valid("carriage"));
    let mut after = before.clone();
    for route in after.routes.values_mut() {
        route.carriage = Default::default();
    }
    for service in after.services.values_mut() {
        (service.protocol, service.send_proxy_protocol) = Default::default();
    }
    for (from, to) in [(&before, &after), (&after, &before)] {
        let changes = difference(from, to);
        assert!(changes.len() >= 10, "{changes:?}");
        for change in changes {
            assert!(!change.consequence.contains("nothing is known"), "{change}");
        }
    }
}
