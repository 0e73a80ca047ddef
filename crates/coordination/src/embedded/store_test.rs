//! openraft's own suite against our storage.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::raft_types::TypeConfig;
use super::store::{self, Log, Machine};

struct Builder;

impl StoreBuilder<TypeConfig, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<TypeConfig>> {
        let directory = TempDir::new().expect("a directory for the test");
        let opened = store::open(store::Place::Directory(directory.path().to_owned())).expect("a new store");
        Ok((directory, opened.log, opened.machine))
    }
}

#[tokio::test]
async fn openraft_storage_suite_passes() {
    Suite::test_all(Builder).await.expect("openraft's storage suite");
}
