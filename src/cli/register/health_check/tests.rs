use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn checks_are_written_as_addresses_or_relative_to_the_instance() {
    let at = Some(SocketAddr::from(([10, 0, 0, 1], 80)));
    let service = "orders.v1.Orders".to_owned();
    let cases = [
        ("http://10.0.0.1:80/ready?x=1", Check::Http { address: at, path: "/ready?x=1".into() }),
        ("http://10.0.0.1:80", Check::Http { address: at, path: "/".into() }),
        ("http:/ready", Check::Http { address: None, path: "/ready".into() }),
        ("tcp", Check::Tcp { address: None }),
        ("tcp://10.0.0.1:80", Check::Tcp { address: at }),
        ("grpc", Check::Grpc { address: None, service: String::new() }),
        ("grpc:orders.v1.Orders", Check::Grpc { address: None, service: service.clone() }),
        ("grpc://10.0.0.1:80/orders.v1.Orders", Check::Grpc { address: at, service }),
    ];
    for (text, check) in cases {
        assert_eq!(Check::parse(text), Ok(check), "{text}");
    }
}

#[test]
fn a_check_of_a_name_or_of_nothing_known_is_refused() {
    assert_eq!(Check::parse("http://localhost:80/"), Err(ValueError::Name("localhost:80".into())));
    for wrong in ["", "http", "http:ready", "https://10.0.0.1:80/", "tcp:/x", "http:/a b"] {
        assert_eq!(Check::parse(wrong), Err(ValueError::Check(wrong.into())), "{wrong}");
    }
}

#[tokio::test]
async fn an_http_check_wants_a_status_of_200() {
    assert!(check_against("HTTP/1.1 204 No Content\r\n\r\n").await.0.is_ok());
    let refused = check_against("HTTP/1.1 503 Service Unavailable\r\n\r\n").await.0;
    assert!(matches!(refused, Err(Unhealthy::Status(StatusCode::SERVICE_UNAVAILABLE))));
    for nonsense in ["", "hello\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
        let (answered, _) = check_against(nonsense).await;
        assert!(matches!(answered, Err(Unhealthy::Exchange(_))), "{nonsense}: {answered:?}");
    }
}

/// docker-consul#63: an application whose answer is not read sees its connection reset.
#[tokio::test]
async fn an_answer_is_read_before_the_connection_closes() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000));
    let (answered, end) = check_against(&long).await;
    assert!(answered.is_ok(), "{answered:?}");
    assert!(matches!(end, Ok(0)), "the application saw {end:?}, not the end");
}

/// The status counts, not the end of the body: an application that keeps its connection open, or
/// answers without end, is healthy.
#[tokio::test]
async fn an_answer_without_an_end_is_healthy() {
    for open in ["HTTP/1.1 200 OK\r\n\r\nevent", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"] {
        let (answered, end) = check_against(open).await;
        assert!(answered.is_ok(), "{answered:?}");
        assert!(matches!(end, Ok(0)), "the application saw {end:?}, not the end");
    }
}

#[tokio::test]
async fn a_port_without_a_listener_is_unhealthy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let check = Check::Tcp { address: None };
    assert!(check.ask(address, LIMIT).await.is_ok());
    drop(listener);
    assert!(matches!(check.ask(address, LIMIT).await, Err(Unhealthy::Connect(_))));
}

/// Asks an HTTP check of a server that gives one answer and leaves the connection open. Tells also
/// what the server reads after its answer: no bytes, if the connection was closed in order.
async fn check_against(answer: &str) -> (Result<(), Unhealthy>, io::Result<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serve = async {
        let (mut connection, _) = listener.accept().await.expect("a caller");
        let mut request = [0; 1024];
        let _ = connection.read(&mut request).await;
        let _ = connection.write_all(answer.as_bytes()).await;
        if answer.is_empty() { Ok(0) } else { connection.read(&mut request).await }
    };
    let check = Check::Http { address: None, path: "/".into() };
    tokio::join!(check.ask(address, LIMIT), serve)
}
