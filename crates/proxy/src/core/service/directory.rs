//! Which of the routes that listen in one place a request means: by its host, then by the longest beginning of its path.

use model::system::PathPrefix;

/// What listens in one place, the most particular first.
#[derive(Clone, Debug)]
pub struct Directory<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    host: Host,
    path: PathPrefix,
    value: T,
}

/// Hosts that an entry is for; the order is that in which they are asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    /// Only this one.
    Exactly(String),
    /// Those that end so; the text begins with a point. Longer ones come first.
    Below(std::cmp::Reverse<usize>, String),
    /// All that no other entry names.
    Any,
}

impl<T> Default for Directory<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T: Clone> Directory<T> {
    /// Adds `value` for these hosts (none: for all) and this beginning of a path.
    pub fn add(&mut self, hosts: &[String], path: &PathPrefix, value: &T) {
        let hosts = if hosts.is_empty() {
            vec![Host::Any]
        } else {
            hosts.iter().map(|host| Host::new(host)).collect()
        };
        let entry = |host| Entry { host, path: path.clone(), value: value.clone() };
        self.entries.extend(hosts.into_iter().map(entry));
        // Stable, so that of two that claim the same the first has it.
        self.entries.sort_by(|a, b| {
            a.host.cmp(&b.host).then_with(|| b.path.as_str().len().cmp(&a.path.as_str().len()))
        });
    }

    /// The entry for a request to `host` (as in a Host header, if there is one) and `path`. Where the entries of one host
    /// have no such path, less particular ones are asked.
    pub fn find(&self, host: Option<&str>, path: &str) -> Option<&T> {
        let name = host.map(bare);
        let name = name.as_deref().unwrap_or_default();
        self.entries.iter().find(|e| e.host.is(name) && e.path.covers(path)).map(|entry| &entry.value)
    }

    /// The entries for a host, whatever the path, the most particular first.
    pub fn for_host<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a T> {
        let name = bare(host);
        self.entries.iter().filter(move |entry| entry.host.is(&name)).map(|entry| &entry.value)
    }

    /// Every value; one with several hosts more than once.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.value)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Host {
    fn new(pattern: &str) -> Self {
        match pattern.strip_prefix('*') {
            Some(end) => Self::Below(std::cmp::Reverse(end.len()), end.to_ascii_lowercase()),
            None => Self::Exactly(pattern.to_ascii_lowercase()),
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Exactly(host) => host == name,
            Self::Below(_, end) => name.len() > end.len() && name.ends_with(end.as_str()),
            Self::Any => true,
        }
    }
}

/// The name in a Host header: in lower case, without port, brackets and the point at its end.
fn bare(host: &str) -> String {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => match host.rsplit_once(':') {
            Some((name, _)) if !name.contains(':') => name,
            Some(_) | None => host,
        },
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn directory(entries: &[(&[&str], &str)]) -> Directory<usize> {
        let mut directory = Directory::default();
        for (number, (hosts, path)) in entries.iter().enumerate() {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            directory.add(&hosts, &PathPrefix::new(path), &number);
        }
        directory
    }

    #[test]
    fn the_most_particular_host_and_then_the_longest_path_wins() {
        let routes = directory(&[
            (&[], "/"),
            (&[], "/api"),
            (&["shop.example"], "/"),
            (&["*.shop.example"], "/"),
            (&["*.eu.shop.example", "fd00::1"], "/api/v2"),
            (&["a.shop.example"], "/api"),
        ]);
        for (host, path, wanted) in [
            ("other", "/", 0),
            ("other:8080", "/api/x", 1),
            ("other", "/apix", 0),
            ("SHOP.example.:443", "/api", 2),
            ("b.shop.example", "/api", 3),
            ("b.eu.shop.example", "/api/v2/x", 4),
            ("b.eu.shop.example", "/api", 3),
            ("a.shop.example", "/api", 5),
            ("a.shop.example", "/", 3),
            ("[fd00::1]:80", "/api/v2", 4),
            (".shop.example", "/", 0),
        ] {
            assert_eq!(routes.find(Some(host), path), Some(&wanted), "{host} {path}");
        }
        assert_eq!(routes.find(None, "*"), Some(&0));
        assert_eq!(directory(&[(&["a"], "/")]).find(Some("b"), "/"), None);
        assert_eq!(routes.for_host("a.shop.example").collect::<Vec<_>>(), [&5, &3, &1, &0]);
    }

    proptest! {
        /// Whatever is asked: the answer is an entry that covers the question, and none that does is more particular.
        #[test]
        fn nothing_is_found_that_does_not_cover(host in "[a-c.:\\[\\]]{0,8}", path in "/[ab/]{0,6}") {
            let routes = directory(&[(&["a"], "/a"), (&["*.a"], "/"), (&["a"], "/a/b"), (&["b"], "/")]);
            match routes.find(Some(&host), &path) {
                Some(2) => prop_assert!(path.starts_with("/a/b")),
                Some(0) => prop_assert!(path.starts_with("/a") && !PathPrefix::new("/a/b").covers(&path)),
                Some(1) => prop_assert!(bare(&host).ends_with(".a")),
                Some(_) => prop_assert_eq!(bare(&host), "b"),
                None => prop_assert!(bare(&host) != "b"),
            }
        }
    }
}
