//! Services that run from images.

use super::super::placeholder;
use super::super::problem::Code;
use super::super::read::At;
use super::super::read::tables::ServiceTable;
use super::Check;

/// The longest name of an image, with its registry and digest.
const LONGEST_IMAGE: usize = 500;

impl Check<'_, '_> {
    /// The image that the file gives.
    pub(super) fn image(&mut self, name: &str, table: &ServiceTable) -> Option<String> {
        let At { value: image, span } = table.image.given()?;
        if !is_image(image) {
            let paste = self.findings.line_with(span, "\"registry.example/shop:1.4.2\"");
            self.error(
                Code::InvalidImage,
                span,
                format!("`services.{name}.image` cannot be the name of an image"),
            )
            .why("it is [REGISTRY/]NAME[:TAG][@DIGEST] with a name in lower case, and has no placeholders")
            .paste("write for example", paste);
        }
        self.check_release_of_image(name, table);
        Some(image.clone())
    }

    /// What a release unpacks lies on the node, where a container does not see it.
    fn check_release_of_image(&mut self, name: &str, table: &ServiceTable) {
        let words = table.command.given().into_iter().flat_map(|at| &at.value);
        let words = words.map(|at| (&at.value, &at.span));
        let env = table.env.given().into_iter().flat_map(|at| &at.value.0);
        let values = env.filter_map(|variable| Some((variable.body.as_ref()?, &variable.value_span)));
        let names_release = |(text, _): &(&String, _)| placeholder::uses_release(text);
        let places: Vec<_> =
            words.chain(values).filter(names_release).map(|(_, span)| span.clone()).collect();
        for span in places {
            self.error(
                Code::UnknownPlaceholder,
                &span,
                format!("`services.{name}` runs from an image and has no {{release}}"),
            )
            .why("a release lies in a directory of the node, an image brings its own files")
            .hint("name another `image` to release one, or remove `image`");
        }
    }
}

/// Whether engines take it as `[REGISTRY/]NAME[:TAG][@DIGEST]` (the grammar of the distribution project's references).
fn is_image(text: &str) -> bool {
    let (named, digest) = text.split_once('@').map_or((text, None), |(named, digest)| (named, Some(digest)));
    // A colon before the last slash belongs to the registry's port.
    let (path, tag) = match named.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        Some(_) | None => (named, None),
    };
    let (registry, name) = match path.split_once('/') {
        Some((first, rest)) if is_registry(first) => (Some(first), rest),
        Some(_) | None => (None, path),
    };
    text.len() <= LONGEST_IMAGE
        && name.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
        && registry.is_none_or(is_host_and_port)
}

/// The first part of a path is a registry when no name could look so.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.contains(|c: char| c.is_ascii_uppercase())
}

fn is_host_and_port(registry: &str) -> bool {
    let (host, port) = registry.rsplit_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = |part: &str| matches!(part, "" | "." | "_" | "__") || part.chars().all(|c| c == '-');
    text.starts_with(plain) && text.ends_with(plain) && text.split(plain).all(between)
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(word) && text.len() <= 128 && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_digest(text: &str) -> bool {
    let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    text.split_once(':').is_some_and(|(algorithm, hash)| {
        let known = matches!((algorithm, hash.len()), ("sha256", 64) | ("sha512", 128));
        known && hash.chars().all(hex)
    })
}

#[cfg(test)]
mod tests {
    use super::is_image;

    #[test]
    fn references_of_images_are_told_from_other_texts() {
        let digest = format!("shop@sha256:{}", "0a".repeat(32));
        let good = [
            "shop",
            "shop:1.4.2",
            "localhost/shop:1",
            "registry.example:5000/team/my-shop__x.y:1.4_2-rc",
            "Registry/shop",
            "localhost:5000/shop",
            &digest,
            &digest.replace('@', ":1@"),
        ];
        for text in good {
            assert!(is_image(text), "{text}");
        }
        let long = "a".repeat(501);
        let bad = [
            "",
            "--privileged",
            "-v/:/x",
            "Shop:1",
            "shop:",
            "shop:-1",
            "shop/",
            "/shop",
            "a//b",
            "a..b",
            "a___b",
            "shop@sha256:0a",
            "shop:{instance}",
            "shop one",
            "registry.example:70000/shop",
            "-x.example/shop",
            "https://registry.example/shop",
            &long,
            &digest.to_uppercase(),
        ];
        for text in bad {
            assert!(!is_image(text), "{text}");
        }
    }
}
