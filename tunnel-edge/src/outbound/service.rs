//! What a listener leads to: a service of the cloud side, or of another edge.

use std::{borrow::Cow, fmt, str::FromStr};

use tunnel_model::{NodeName, ServiceName};

/// A service beyond the gateway. The text form is `SERVICE` or `SERVICE.cloud` for the cloud side, `SERVICE.NODE` for
/// another edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemoteService {
    /// Its name.
    pub service: ServiceName,
    /// Whose it is; [`NodeName::cloud`] for the cloud side.
    pub node: NodeName,
}

/// A text names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no service beyond the gateway; write SERVICE.cloud or SERVICE.NODE, addresses cannot be asked for"
)]
pub struct ParseRemoteServiceError(String);

impl FromStr for RemoteService {
    type Err = ParseRemoteServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseRemoteServiceError(text.to_owned());
        let (service, node) = match text.split_once('.') {
            Some((service, node)) => (service, node.parse().map_err(|_| fail())?),
            None => (text, NodeName::cloud()),
        };
        Ok(Self {
            service: service.parse().map_err(|_| fail())?,
            node,
        })
    }
}

impl fmt::Display for RemoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.node)
    }
}

impl TryFrom<String> for RemoteService {
    type Error = ParseRemoteServiceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RemoteService> for String {
    fn from(service: RemoteService) -> Self {
        service.to_string()
    }
}

impl schemars::JsonSchema for RemoteService {
    fn schema_name() -> Cow<'static, str> {
        "RemoteService".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "SERVICE.cloud or SERVICE.NODE; SERVICE alone is of the cloud side"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_an_owner_is_of_the_cloud_side() {
        for (text, shown) in [
            ("registry", "registry.cloud"),
            ("registry.cloud", "registry.cloud"),
            ("web.edge2", "web.edge2"),
        ] {
            assert_eq!(text.parse::<RemoteService>().unwrap().to_string(), shown);
        }
    }

    /// T2
    #[test]
    fn t2_an_address_is_no_service() {
        for text in [
            "",
            ".",
            "web.",
            ".edge2",
            "10.0.0.1",
            "web.edge2.x",
            "web:80",
            "[::1]",
            "edge2:80",
            "Web.edge2",
        ] {
            assert!(text.parse::<RemoteService>().is_err(), "{text:?}");
        }
    }
}
