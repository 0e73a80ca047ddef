//! Founding and tokens, without an agent.

use std::os::unix::fs::PermissionsExt;

use model::system::parse;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn shop() -> System {
    let text = "[system]\nname = \"shop\"\n[nodes.n1]\naddress = \"10.0.0.1\"\n[nodes.n2]\naddress = \"10.0.0.2\"\n\
                [nodes.n3]\naddress = \"10.0.0.3\"\n";
    parse("test.toml", text.as_bytes()).unwrap().system
}

fn founded() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    found(root.path(), &shop(), &"n1".into()).unwrap();
    root
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_founded_node_knows_who_it_is_and_keeps_its_secrets() {
    let root = founded();
    assert_eq!(known_system(root.path()).unwrap(), shop());
    let identity = Identity::load(&state(root.path(), "identity"), &"shop".into()).unwrap();
    assert_eq!(identity.node(), NodeName::from("n1"));
    assert_eq!(mode(&state(root.path(), "authority")), 0o700);
    assert_eq!(mode(&state(root.path(), "authority/authority.pem")), 0o600);
    let token = token(root.path(), Some(&"n2".into()), HOUR).unwrap();
    assert_eq!(token.authority, identity.authority());
    assert_eq!(mode(&state(root.path(), "authority/tokens.json")), 0o600);
}

#[test]
fn nothing_is_founded_over_a_node_or_for_one_that_is_not_in_the_file() {
    let root = founded();
    let before = std::fs::read(state(root.path(), "identity/node.pem")).unwrap();
    let error = found(root.path(), &shop(), &"n1".into()).unwrap_err();
    assert!(matches!(error, InstallError::Occupied(_)), "{error}");
    assert_eq!(std::fs::read(state(root.path(), "identity/node.pem")).unwrap(), before);
    let empty = tempfile::tempdir().unwrap();
    let error = found(empty.path(), &shop(), &"n9".into()).unwrap_err();
    assert_eq!(error.to_string(), "the system file has no node `n9`; it has n1, n2, n3");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn tokens_are_given_by_who_holds_the_authority_for_nodes_of_the_file() {
    let root = founded();
    assert!(matches!(token(root.path(), Some(&"n9".into()), HOUR), Err(InstallError::UnknownNode { .. })));
    std::fs::remove_dir_all(state(root.path(), "authority")).unwrap();
    let error = token(root.path(), None, HOUR).unwrap_err();
    assert!(matches!(error, InstallError::Authority(AuthorityError::Missing(_))), "{error}");
    let nowhere = tempfile::tempdir().unwrap();
    assert!(matches!(token(nowhere.path(), None, HOUR), Err(InstallError::NoNode(_))));
}

#[test]
fn an_exported_authority_can_be_brought_back_to_its_own_system_only() {
    let (root, other) = (founded(), founded());
    let text = export_authority(root.path()).unwrap();
    let error = import_authority(other.path(), &text).unwrap_err();
    assert!(matches!(error, InstallError::OtherAuthority { .. }), "{error}");
    std::fs::remove_dir_all(state(root.path(), "authority")).unwrap();
    assert!(import_authority(root.path(), "nonsense").is_err());
    import_authority(root.path(), &text).unwrap();
    token(root.path(), None, HOUR).unwrap();
    assert_eq!(mode(&state(root.path(), "authority/authority.pem")), 0o600);
}

#[test]
fn a_unit_lets_what_the_agent_supervises_live_on() {
    let text = unit(Path::new("/usr/local/bin/mainstay"), &"n1".into(), Path::new("/srv/50% $x"));
    assert!(
        text.contains("ExecStart=\"/usr/local/bin/mainstay\" agent --node n1 --root \"/srv/50%% $$x\"\n")
    );
    assert!(text.contains("\nKillMode=process\n"));
}
