//! Names and references to them.

use std::ops::Range;

use super::super::nearest::nearest;
use super::super::problem::Code;
use super::super::read::{At, Field, Section, check_name};
use super::Check;

/// How many names a misspelled reference is compared with.
const COMPARED: usize = 1000;

impl Check<'_, '_> {
    /// Reports a name that cannot be a host label.
    pub(super) fn check_name(&mut self, kind: &str, name: &str, span: &Range<usize>) {
        check_name(kind, name, span, self.findings);
    }

    /// Whether the section has `at`; a name it does not have is reported with the nearest it has.
    pub(super) fn refers<T>(&mut self, kind: &str, at: &At<String>, section: &Field<Section<T>>) -> bool {
        let code = match kind {
            "site" => Code::UnknownSite,
            "node" => Code::UnknownNode,
            "service" => Code::UnknownService,
            "database" => Code::UnknownDatabase,
            _ => Code::UnknownRoute,
        };
        self.refers_by(code, kind, &at.value, &at.span, section)
    }

    /// As [`Self::refers`], for a name inside another text.
    pub(super) fn refers_by<T>(
        &mut self,
        code: Code,
        kind: &str,
        name: &str,
        span: &Range<usize>,
        section: &Field<Section<T>>,
    ) -> bool {
        let names = || section.given().into_iter().flat_map(|s| s.value.names());
        if names().any(|known| known == name) {
            return true;
        }
        // A section that could not be read may well have the name.
        if section.given().is_none() && !section.is_absent() {
            return false;
        }
        let known: Vec<&str> = names().take(COMPARED).collect();
        let meant = if self.findings.is_full() { None } else { nearest(name, known.iter().copied()) };
        let meant = meant.map(|meant| self.findings.line_with_part(span, name, meant));
        let problem = self.error(code, span, format!("there is no {kind} `{name}`"));
        match known.len() {
            0 => problem.why(format!("the file describes no {kind}")),
            1..=8 => problem.why(format!("the file describes {}", known.join(", "))),
            many => problem.why(format!("the file describes {many} others, but not this one")),
        };
        match meant {
            Some(meant) => problem.paste("did you mean", meant),
            None => problem.paste("describe it", format!("[{kind}s.{name}]")),
        };
        false
    }
}
