//! A connection to Redis, one server or a cluster: commands in, answers out, in bounded round trips.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Client, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, cmd, pipe};
use tokio::sync::RwLock;

/// Commands in one pipeline at most, so that neither side holds more than a bounded answer.
const PIPELINE: usize = 1024;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// Where Redis is, and how to get in.
#[derive(Debug, Clone, Default)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port[/db]`, `rediss://` for TLS (trusted are the system's authorities, or those of
    /// the environment's `SSL_CERT_FILE`); several, of one cluster, with commas between.
    pub url: String,
    /// What all keys begin with.
    pub project: String,
    /// Keys that are idle are not forgotten, and reads reach back as far as timelines do.
    pub keep_idle: bool,
}

/// Clones share the connection.
#[derive(Clone)]
pub enum Link {
    One(Box<One>),
    Cluster(ClusterConnection),
}

/// One server, or whichever is behind its address.
#[derive(Clone)]
pub struct One {
    client: Client,
    connection: Arc<RwLock<ConnectionManager>>,
}

impl One {
    async fn open(client: Client) -> RedisResult<One> {
        let connection = Arc::new(RwLock::new(connect(&client).await?));
        Ok(One { client, connection })
    }

    async fn connection(&self) -> ConnectionManager {
        self.connection.read().await.clone()
    }

    /// Connects anew. The address may stand for another server by now: the connection that is there stays with the one
    /// that it was made to, for as long as that one lives.
    async fn connect_again(&self) -> RedisResult<()> {
        *self.connection.write().await = connect(&self.client).await?;
        Ok(())
    }
}

async fn connect(client: &Client) -> RedisResult<ConnectionManager> {
    let settings = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(ANSWER));
    ConnectionManager::new_with_config(client.clone(), settings).await
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::One(_) => "One",
            Link::Cluster(_) => "Cluster",
        })
    }
}

/// A server of a cluster; none where there is only one.
pub type Node = Option<(String, u16)>;

impl Link {
    /// Connects; whether it is a cluster, the server says.
    pub async fn open(config: &RedisConfig) -> RedisResult<Link> {
        let urls: Vec<&str> = config.url.split(',').map(str::trim).collect();
        let client = Client::open(urls.first().copied().unwrap_or_default())?;
        let one = One::open(client).await?;
        let info: String = cmd("INFO").arg("cluster").query_async(&mut one.connection().await).await?;
        if !info.contains("cluster_enabled:1") {
            return Ok(Link::One(Box::new(one)));
        }
        let builder = ClusterClient::builder(urls).connection_timeout(CONNECT).response_timeout(ANSWER).retries(3);
        Ok(Link::Cluster(builder.build()?.get_async_connection().await?))
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self, Link::Cluster(_))
    }

    /// Runs commands that don't depend on each other, each of one key; an answer each, in order. What a server answers
    /// to one command is that command's; a connection that fails is everyone's.
    pub async fn all(&self, commands: Vec<Cmd>) -> RedisResult<Vec<RedisResult<Value>>> {
        let mut answers = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter();
        loop {
            let some: Vec<Cmd> = commands.by_ref().take(PIPELINE).collect();
            if some.is_empty() {
                return Ok(answers);
            }
            match self {
                Link::One(link) => {
                    let mut pipeline = pipe();
                    some.into_iter().for_each(|command| {
                        pipeline.add_command(command);
                    });
                    let connection = &mut link.connection().await;
                    let more: Vec<RedisResult<Value>> = pipeline.ignore_errors().query_async(connection).await?;
                    // It was made a replica: the next attempt asks who is the master now.
                    if let Some(Err(error)) = more.iter().find(|answer| matches!(answer, Err(e) if is_read_only(e))) {
                        link.connect_again().await?;
                        return Err(error.clone());
                    }
                    answers.extend(more);
                }
                // A pipeline goes to one node; commands in flight together are pipelined node by node.
                Link::Cluster(link) => {
                    let each = some.into_iter().map(|command| {
                        let mut link = link.clone();
                        async move { command.query_async::<Value>(&mut link).await }
                    });
                    for answer in join_all(each).await {
                        match answer {
                            Err(error) if !is_answer(&error) => return Err(error),
                            answer => answers.push(answer),
                        }
                    }
                }
            }
        }
    }

    /// The servers that hold keys.
    pub async fn masters(&self) -> RedisResult<Vec<Node>> {
        let Link::Cluster(link) = self else {
            return Ok(vec![None]);
        };
        type Slots = Vec<(u16, u16, Vec<Value>)>;
        let mut slots = cmd("CLUSTER");
        slots.arg("SLOTS");
        let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
        let value = link.clone().route_command(slots, any).await?;
        let slots: Slots = match value {
            Value::Array(ranges) => ranges.into_iter().filter_map(range).collect(),
            _ => vec![],
        };
        let mut masters: Vec<Node> = slots.into_iter().filter_map(|(_, _, node)| address(&node)).map(Some).collect();
        masters.sort();
        masters.dedup();
        Ok(masters)
    }

    /// Runs a command on one server.
    pub async fn on(&self, node: &Node, command: Cmd) -> RedisResult<Value> {
        match (self, node) {
            (Link::Cluster(link), Some((host, port))) => {
                let to = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                link.clone().route_command(command, RoutingInfo::SingleNode(to)).await
            }
            (Link::Cluster(link), None) => command.query_async(&mut link.clone()).await,
            (Link::One(link), _) => command.query_async(&mut link.connection().await).await,
        }
    }
}

fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// An answer of a server, as against a connection that failed or a cluster that is being put together again.
fn is_answer(error: &RedisError) -> bool {
    error.code().is_some() && !error.is_cluster_error() && !error.is_io_error()
}

fn range(range: Value) -> Option<(u16, u16, Vec<Value>)> {
    let Value::Array(parts) = range else { return None };
    let mut parts = parts.into_iter();
    let (Some(Value::Int(start)), Some(Value::Int(end)), Some(Value::Array(node))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    Some((u16::try_from(start).ok()?, u16::try_from(end).ok()?, node))
}

fn address(node: &[Value]) -> Option<(String, u16)> {
    match node {
        [Value::BulkString(host), Value::Int(port), ..] => {
            Some((String::from_utf8(host.clone()).ok()?, u16::try_from(*port).ok()?))
        }
        _ => None,
    }
}
