//! What an agent listens on: `[listen]`, or `[[listen]]` for several.

use std::{fmt, net::SocketAddr};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use tunnel_daemon::{
    config::{ConfigError, Source},
    listen::require_local,
};
use tunnel_model::{ChosenClass, Protocol};

use crate::outbound::RemoteService;

/// One `[listen]` table, or an entry of `[[listen]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawListen {
    /// A loopback address for /metrics, /livez and /readyz; not served unless set
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// An address for clients of a service of the cloud side or of another edge
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// That service: SERVICE.cloud or SERVICE.NODE
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<RemoteService>,
    /// By which protocol clients and the service speak, tcp or udp; tcp unless set
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// How urgent its streams are: interactive, api, metrics or bulk; as the service's name says unless set
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<ChosenClass>,
}

/// A listener for one service beyond the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// What they reach.
    pub service: RemoteService,
    /// By what.
    pub protocol: Protocol,
    /// How urgent its streams are, where that was chosen.
    pub class: Option<ChosenClass>,
}

/// The tables as written, `[listen]` or `[[listen]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawListens {
    tables: Vec<RawListen>,
    /// It is a list, so that messages can name the place.
    list: bool,
}

impl RawListens {
    /// What a file would say for these.
    pub(super) fn new(metrics: Option<SocketAddr>, listeners: &[Listener]) -> Self {
        let metrics = metrics.map(|address| RawListen {
            metrics: Some(address),
            ..RawListen::default()
        });
        let listeners = listeners.iter().map(|listener| RawListen {
            metrics: None,
            listen: Some(listener.listen),
            service: Some(listener.service.clone()),
            protocol: (listener.protocol != Protocol::default()).then_some(listener.protocol),
            class: listener.class,
        });
        let tables: Vec<_> = metrics.into_iter().chain(listeners).collect();
        let list = tables.len() > 1;
        Self { tables, list }
    }

    /// What they mean: where metrics are served, and the listeners.
    pub(super) fn check(self, source: &Source) -> Result<(Option<SocketAddr>, Vec<Listener>), ConfigError> {
        let (mut metrics, mut listeners) = (None, Vec::<Listener>::new());
        for (i, table) in self.tables.into_iter().enumerate() {
            let at = if self.list {
                format!("listen[{i}]")
            } else {
                "listen".to_owned()
            };
            if let Some(address) = table.metrics {
                let key = format!("{at}.metrics");
                require_local(address).map_err(|refused| source.invalid(&key, refused))?;
                if metrics.replace(address).is_some() {
                    return Err(source.invalid(&key, "metrics are served at one address, and there is one already"));
                }
            }
            match (table.listen, table.service) {
                (Some(listen), Some(service)) => {
                    let protocol = table.protocol.unwrap_or_default();
                    let same = |other: &Listener| other.listen == listen && other.protocol == protocol;
                    if listen.port() != 0 && listeners.iter().any(same) {
                        return Err(source.invalid(&format!("{at}.listen"), format!("{listen} is taken by another")));
                    }
                    listeners.push(Listener {
                        listen,
                        service,
                        protocol,
                        class: table.class,
                    });
                }
                (Some(_), None) => {
                    return Err(source.invalid(&format!("{at}.listen"), "it leads nowhere; add the key `service`"));
                }
                (None, Some(_)) => {
                    return Err(source.invalid(&format!("{at}.service"), "nobody can reach it; add the key `listen`"));
                }
                (None, None) => {
                    let set = [("protocol", table.protocol.is_some()), ("class", table.class.is_some())];
                    if let Some((key, _)) = set.into_iter().find(|(_, set)| *set) {
                        let why = "it belongs to a listener; add the keys `listen` and `service`";
                        return Err(source.invalid(&format!("{at}.{key}"), why));
                    }
                }
            }
        }
        Ok((metrics, listeners))
    }
}

impl<'de> Deserialize<'de> for RawListens {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Tables)
    }
}

struct Tables;

impl<'de> Visitor<'de> for Tables {
    type Value = RawListens;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table or a list of tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<RawListens, A::Error> {
        RawListen::deserialize(MapAccessDeserializer::new(table)).map(|table| RawListens {
            tables: vec![table],
            list: false,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RawListens, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(|tables| RawListens { tables, list: true })
    }
}

impl Serialize for RawListens {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match (self.list, self.tables.as_slice()) {
            (false, [table]) => table.serialize(to),
            (_, tables) => tables.serialize(to),
        }
    }
}

impl JsonSchema for RawListens {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RawListens".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let table = generator.subschema_for::<RawListen>();
        let list = generator.subschema_for::<Vec<RawListen>>();
        schemars::json_schema!({ "anyOf": [table, list] })
    }
}
