//! Bad links: some of what a node sends and gets is lost.

use std::time::Duration;

use effects::clock::now;
use model::{LineName, NodeName};

use super::{Evidence, Lines};
use crate::error::Result;
use crate::lab::Lab;
use crate::network;
use crate::network::flaw::{self, Flaw};

/// A flaw as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveFlaw {
    /// The node whose link it is.
    pub node: NodeName,
    /// On this line.
    pub line: LineName,
    /// What is wrong.
    pub flaw: Flaw,
    /// Packets lost so far.
    pub packets: u64,
    /// When it ends by itself.
    pub expires: Option<Duration>,
}

impl Lab {
    /// Makes all links of a node bad, until they are mended, at the longest for `lasting`.
    pub fn spoil_links(&self, node: &NodeName, flaw: Flaw, lasting: Duration) -> Result<Evidence> {
        self.need_namespaces("bad links")?;
        let ports = self.ports(node, &Lines::All)?;
        let begun = now();
        flaw::spoil(&network::switch(self.system()), flaw, &ports, lasting)?;
        let what = format!("the switch loses {} from and to {node} for at most {lasting:?}", flaw.losses());
        Ok(Evidence::since(begun, what))
    }

    /// Makes all links of a node good again; tells how many packets were lost.
    pub fn mend_links(&self, node: &NodeName) -> Result<Evidence> {
        self.need_namespaces("mending links")?;
        let ports = self.ports(node, &Lines::All)?;
        let begun = now();
        let flaws: Vec<ActiveFlaw> = self.flaws()?.into_iter().filter(|flaw| flaw.node == *node).collect();
        flaw::mend(&network::switch(self.system()), &ports)?;
        let lost: u64 = flaws.iter().map(|flaw| flaw.packets).sum();
        let what = match lost {
            // A flaw that lost nothing was none: nothing is proved.
            0 if !flaws.is_empty() => String::new(),
            _ => format!("{} bad links of {node} mended after {lost} lost packets", flaws.len()),
        };
        Ok(Evidence::since(begun, what))
    }

    /// All flaws at this moment, with what they have lost.
    pub fn flaws(&self) -> Result<Vec<ActiveFlaw>> {
        self.need_namespaces("bad links")?;
        let active = flaw::active(&network::switch(self.system()))?;
        let report = |((port, flaw), counted): ((String, Flaw), network::cut::Counted)| {
            let (node, line) = self.owner(&port)?;
            Some(ActiveFlaw { node, line, flaw, packets: counted.packets, expires: counted.expires })
        };
        Ok(active.into_iter().filter_map(report).collect())
    }
}
