//! Data that must not be touched.

use std::collections::BTreeMap;
use std::path::Path;

use effects::postgres::{Application, Installation, InstallationError, StartError, StartRole};

use super::cluster::{Cluster, SOON};

/// Every file below `directory` with its length and time of change.
fn fingerprint(directory: &Path) -> BTreeMap<std::path::PathBuf, (u64, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let facts = entry.metadata().unwrap();
        if facts.is_dir() {
            found.extend(fingerprint(&entry.path()));
        }
        found.insert(entry.path(), (facts.len(), facts.modified().unwrap()));
    }
    found
}

async fn refused_untouched(cluster: &Cluster) -> StartError {
    let member = &cluster.members[0];
    let before = fingerprint(&member.paths().data);
    let error = member.start(&StartRole::Standby, &cluster.settings, SOON).await.unwrap_err();
    assert_eq!(fingerprint(&member.paths().data), before, "the data was touched");
    println!("{error}");
    error
}

#[tokio::test]
async fn a_corrupted_control_file_is_one_clear_error() {
    let cluster = Cluster::of(&["e1"]).await;
    let member = &cluster.members[0];
    member.found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON).await.unwrap();
    let control = member.paths().data.join("global/pg_control");
    let mut bytes = std::fs::read(&control).unwrap();
    bytes[100] ^= 0xff;
    std::fs::write(&control, &bytes).unwrap();
    let error = refused_untouched(&cluster).await;
    assert!(
        matches!(error, StartError::Control(_)) && error.to_string().contains("is copied anew"),
        "{error}"
    );
    std::fs::remove_file(&control).unwrap();
    let error = refused_untouched(&cluster).await;
    assert!(matches!(error, StartError::Control(_)) && error.to_string().contains("pg_control"), "{error}");
}

#[tokio::test]
async fn data_of_another_major_version_is_one_clear_error() {
    let cluster = Cluster::of(&["e1"]).await;
    let member = &cluster.members[0];
    member.found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON).await.unwrap();
    std::fs::write(member.paths().data.join("PG_VERSION"), "9\n").unwrap();
    let error = refused_untouched(&cluster).await;
    assert!(matches!(error, StartError::WrongMajor { found: 9, .. }), "{error}");
    let missing = Installation::find(None, Some(9)).await.unwrap_err();
    assert!(matches!(missing, InstallationError::Missing { major: Some(9), .. }), "{missing}");
}

#[tokio::test]
async fn a_member_is_worked_on_by_one_agent_at_a_time() {
    let cluster = Cluster::of(&["e1"]).await;
    let member = &cluster.members[0];
    member.found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON).await.unwrap();
    let _held = effects::files::Lock::try_take(&member.paths().lock()).unwrap().expect("free");
    let error = member.start(&StartRole::Standby, &cluster.settings, SOON).await.unwrap_err();
    assert!(matches!(error, StartError::Locked(_)), "{error}");
}
