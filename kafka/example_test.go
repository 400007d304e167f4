package kafka_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/kafka"
)

func ExampleCluster() {
	c := kafka.Cluster{
		Seeds: []string{"kafka-1:9093", "kafka-2:9093"},
		TLS:   &tls.Config{MinVersion: tls.VersionTLS13},
		Auth:  kafka.SCRAM512("orders", "from a file or a variable"),
	}
	if err := c.Ping(context.Background()); err != nil {
		return // it names the addresses and what is wrong with them
	}
	client, err := c.Client(kgo.ConsumeTopics("shop.orders"))
	if err != nil {
		return
	}
	defer client.Close()
}

func ExampleCluster_Explain() {
	c := kafka.Cluster{Auth: kafka.SCRAM512("shipping", "secret")}
	err := c.Explain(kerr.TopicAuthorizationFailed, "Read", "topic shop.orders", "group shipping")
	denied, ok := errors.AsType[*kafka.PermissionError](err)
	if !ok {
		return
	}
	fmt.Println(denied.Principal, denied.Operation, denied.Resource)
	fmt.Println(err)
	// Output:
	// User:shipping Read topic shop.orders
	// User:shipping has no Read permission on topic shop.orders: grant it (kafka-acls.sh --add --allow-principal User:shipping --operation Read --topic shop.orders)
}

func ExampleAuth() {
	fmt.Printf("%v, %+v, %#v, %s\n", kafka.SCRAM512("orders", "secret"), kafka.Plain("orders", "secret"), kafka.SCRAM256("orders", "secret"), kafka.Auth{})
	// Output: SCRAM-SHA-512 as orders, PLAIN as orders, SCRAM-SHA-256 as orders, none
}
