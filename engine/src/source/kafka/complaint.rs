//! Why a client can't talk to its brokers, in their words and with what to do about it.
//!
//! librdkafka tries again for ever, and says why in passing; what was asked of it ends with a time-out that says nothing. So
//! the last reason is kept, and put beside whatever fails soon after.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};

use super::KafkaError;

/// The same complaint comes twice a minute at the most.
const FRESH: Duration = Duration::from_secs(60);

/// The last complaint of a client, if any is worth repeating.
#[derive(Debug, Default)]
pub struct Complaint(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    at: Instant,
    text: String,
    /// What to do about it; a connection that merely breaks says less.
    hint: &'static str,
}

impl Complaint {
    /// Hears an error that the client says of itself, when it is polled.
    pub fn hear(&self, error: &ClientError, reason: &str) {
        // "All brokers are down" doesn't say why.
        match error.rdkafka_error_code() {
            None | Some(Code::PartitionEOF | Code::AllBrokersDown) => {}
            Some(code) => self.keep(reason, hint(code)),
        }
    }

    /// Hears a line of the client's log, when it is polled: connections that fail are in there, with the reason.
    pub fn hear_log(&self, facility: &str, line: &str) {
        // Who asks what it speaks, and is cut off, speaks another language.
        let early = line.contains("APIVERSION_QUERY") && !line.contains("ssl://");
        // The thread stands before, in brackets.
        let line = line.split_once("]: ").map_or(line, |(_, line)| line);
        if facility != "FAIL" {
            tracing::debug!(facility, line, "Kafka client");
        } else if line.contains("uthentication") {
            self.keep(line, hint(Code::Authentication));
        } else if line.contains("SSL") && line.contains("certificate") {
            self.keep(line, hint(Code::SSL));
        } else if early {
            self.keep(
                line,
                "; hint: a broker that wants TLS closes the connection: see the client option security.protocol",
            );
        } else {
            self.keep(line, "");
        }
    }

    fn keep(&self, text: &str, hint: &'static str) {
        // How long it took is another one each time.
        let text = text.split_once(" (after ").map_or(text, |(text, _)| text);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.as_ref().filter(|kept| kept.at.elapsed() < FRESH);
        if known.is_some_and(|known| hint.is_empty() && !known.hint.is_empty()) {
            return;
        }
        if known.is_none_or(|known| known.text != text) {
            tracing::warn!("Kafka: {text}{hint}");
        }
        *kept = Some(Kept { at: Instant::now(), text: text.to_owned(), hint });
    }

    pub fn text(&self) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|kept| kept.at.elapsed() < FRESH).map(|kept| format!("{}{}", kept.text, kept.hint))
    }

    /// An error, and the complaint that may have been its cause.
    pub fn beside(&self, error: &ClientError) -> String {
        let code = match error {
            ClientError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        let told = code.map_or("", hint);
        match self.text().filter(|_| told.is_empty()) {
            Some(complaint) => format!("{error}: {complaint}"),
            None => format!("{error}{told}"),
        }
    }
}

/// For clients that need to hear of nothing else.
impl ClientContext for Complaint {
    fn error(&self, error: ClientError, reason: &str) {
        self.hear(&error, reason);
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        self.hear_log(facility, line);
    }
}

impl ConsumerContext for Complaint {}

fn hint(code: Code) -> &'static str {
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "; hint: check the client options sasl.mechanism, sasl.username and sasl.password (KAFKA_OPTIONS)"
        }
        Code::SSL => {
            "; hint: the client option ssl.ca.location (KAFKA_OPTIONS) names the file of the authority that the broker's \
             certificate is of"
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => "; hint: the broker's ACLs don't let this user do it",
        _ => "",
    }
}

/// A client that can't be made of its options. The value isn't shown, which may be secret; librdkafka itself names it only
/// where it expected one of a few words.
pub fn misconfigured(error: ClientError) -> KafkaError {
    let cause = match error {
        ClientError::ClientConfig(_, what, _, _) => what,
        other => other.to_string(),
    };
    KafkaError::Config { cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_outlasts_what_follows_from_it() {
        let complaint = Complaint::default();
        let timeout = ClientError::AdminOp(Code::OperationTimedOut);
        assert!(!complaint.beside(&timeout).contains(": sasl"));
        complaint.hear(&ClientError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(complaint.text(), None);
        let line = "[thrd:sasl_ssl://h:1/bootstrap]: sasl_ssl://h:1/bootstrap: SASL authentication error: no (after 3ms in state AUTH_REQ)";
        complaint.hear_log("FAIL", line);
        complaint.hear_log("FAIL", "[thrd:x]: sasl_ssl://h:1/bootstrap: Disconnected (after 5ms in state UP)");
        complaint.hear_log("OTHER", "[thrd:x]: of no interest");
        let said = complaint.beside(&timeout);
        assert!(said.contains(": sasl_ssl://h:1/bootstrap: SASL authentication error: no; hint: check"), "{said}");
        assert!(!said.contains("after"), "{said}");
        // An error that says itself what it is needs no other.
        let said = complaint.beside(&ClientError::AdminOp(Code::TopicAuthorizationFailed));
        assert!(said.ends_with("ACLs don't let this user do it") && !said.contains("SASL"), "{said}");
        complaint.hear_log("FAIL", "[thrd:x]: ssl://h:1/1: SSL handshake failed: certificate verify failed: why");
        assert!(complaint.text().unwrap().starts_with("ssl://h:1/1: SSL handshake"), "the latest that says what to do");
    }

    #[test]
    fn a_wrong_option_is_said_without_its_value() {
        let mut client = rdkafka::ClientConfig::new();
        client.set("sasl.pasword", "hunter2");
        let error = client.create::<rdkafka::consumer::BaseConsumer>().map(|_| ()).map_err(misconfigured).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("sasl.pasword") && !said.contains("hunter2"), "{said}");
    }
}
