//! Services whose instances speak TLS.

use std::net::IpAddr;
use std::ops::Range;

use super::super::problem::Code;
use super::super::read::tables::ServiceTable;
use super::super::read::{At, Field};
use super::super::{InstanceTls, Protocol};
use super::Check;
use super::carriage::is_host;

impl Check<'_, '_> {
    /// How the file wants instances to be recognised.
    pub(super) fn instance_tls(&mut self, name: &str, table: &ServiceTable) -> Option<InstanceTls> {
        let At { value: tls, span } = table.tls.given()?;
        if tls.ca.is_absent() {
            self.error(Code::MissingKey, span, format!("`services.{name}.tls` has no `ca`"))
                .why("without authorities to believe, anybody's certificate would do")
                .paste("write for example", "tls = { ca = \"/etc/shop/instances.pem\" }");
        }
        if table.protocol.given().is_some_and(|at| at.value.0 == Protocol::Tcp) {
            self.error(Code::KeyWithoutEffect, span, format!("`tls` has no effect on the service `{name}`"))
                .why("with `protocol = \"tcp\"` bytes are passed on as they are: client and instance may speak TLS with each other")
                .hint("remove it");
        }
        self.no_page_without_tls(name, table, span);
        let ca = self.path(&tls.ca, &format!("services.{name}.tls.ca"));
        Some(InstanceTls { ca: ca?, name: self.tls_name(&tls.name, &format!("services.{name}.tls.name")) })
    }

    fn tls_name(&mut self, field: &Field<String>, path: &str) -> Option<String> {
        let At { value, span } = field.given()?;
        let is_name = (is_host(value) && !value.starts_with('*')) || value.parse::<IpAddr>().is_ok();
        if !is_name {
            self.error(Code::InvalidHost, span, format!("`{path}` = {value:?} is not the name of a host"))
                .why("it takes labels of letters, digits and `-` between points, or an IP address")
                .paste("write for example", "name = \"web.internal\"");
        }
        Some(value.to_ascii_lowercase())
    }

    /// Supervisors ask pages without TLS, which such an instance would take for rubbish.
    fn no_page_without_tls(&mut self, name: &str, table: &ServiceTable, tls: &Range<usize>) {
        if !table.addresses.is_absent() {
            return;
        }
        let health = table.health.given().and_then(|at| at.value.http.span());
        let ready = table.ready.given().and_then(|at| at.value.http.span());
        for (key, span) in [("health", health), ("ready", ready)] {
            let Some(span) = span.cloned() else { continue };
            self.error(
                Code::KeyWithoutEffect,
                &span,
                format!("`{key}.http` cannot be asked of the service `{name}`"),
            )
            .why("its instances speak TLS, and agents ask pages without")
            .paste("write for example", format!("{key}.tcp = true"))
            .other(tls, "instances speak TLS");
        }
    }
}
