//! An agent's end of a stream on gRPC.

use std::net::SocketAddr;
use std::time::Duration;

use chokepoint_proto::stream::collector_client::CollectorClient;
use chokepoint_proto::stream::{
    Answer, FromAgent, FromCollector, Hello, Welcome, from_agent, from_collector,
};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An agent's end of a stream.
pub struct Stream {
    outgoing: mpsc::Sender<FromAgent>,
    incoming: Streaming<FromCollector>,
}

impl Stream {
    pub async fn open(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect().await.expect("a connection");
        Self::over(channel, None).await.expect("a stream")
    }

    /// A stream over a connection, with a token.
    pub async fn over(channel: Channel, token: Option<&str>) -> Result<Self, Status> {
        let (outgoing, messages) = mpsc::channel(64);
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(messages));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a token");
            request.metadata_mut().insert("authorization", value);
        }
        let incoming = CollectorClient::new(channel).exchange(request).await?.into_inner();
        Ok(Self { outgoing, incoming })
    }

    pub async fn begin(address: SocketAddr, hello: Hello) -> Result<(Self, Welcome), Status> {
        Self::open(address).await.greet(hello).await
    }

    /// Says hello, and hears welcome.
    pub async fn greet(self, hello: Hello) -> Result<(Self, Welcome), Status> {
        let mut stream = self;
        stream.say(from_agent::Message::Hello(hello)).await;
        match stream.hear().await? {
            Some(from_collector::Message::Welcome(welcome)) => Ok((stream, welcome)),
            other => panic!("{other:?} instead of welcome"),
        }
    }

    pub async fn say(&self, message: from_agent::Message) {
        // The collector may have ended the stream: what it says then is what counts.
        let _ = self.outgoing.send(FromAgent { message: Some(message) }).await;
    }

    pub async fn hear(&mut self) -> Result<Option<from_collector::Message>, Status> {
        let message =
            tokio::time::timeout(PATIENCE, self.incoming.message()).await.expect("it says something");
        Ok(message?.and_then(|message| message.message))
    }

    pub async fn answer(&mut self) -> Result<Answer, Status> {
        match self.hear().await? {
            Some(from_collector::Message::Answer(answer)) => Ok(answer),
            other => panic!("{other:?} instead of an answer"),
        }
    }

    /// The status with which the collector ends the stream.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.hear().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}
