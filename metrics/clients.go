package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
)

// clients are the metrics of all Kafka clients of the process: a producer, the consumers, and who asks on the side.
//
// kprom is made for one client: it declares its metrics anew for each, and takes them away with the first that closes.
// Here it declares once, and its gauges of what one client buffers give way to sums over all.
type clients struct {
	*kprom.Metrics
	vectors []prometheus.Collector

	mu   sync.Mutex
	open map[*kgo.Client]struct{}
}

var (
	descProduceRecords = clientDesc("buffered_produce_records", "Records that wait in the clients to be written.")
	descProduceBytes   = clientDesc("buffered_produce_bytes", "Their size.")
	descFetchRecords   = clientDesc("buffered_fetch_records", "Records that wait in the clients to be polled.")
	descFetchBytes     = clientDesc("buffered_fetch_bytes", "Their size.")
)

const clientNamespace = "millrace_kafka_client"

func clientDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(clientNamespace+"_"+name, help, nil, nil)
}

func newClients() *clients {
	c := &clients{open: map[*kgo.Client]struct{}{}}
	c.Metrics = kprom.NewMetrics(clientNamespace,
		kprom.Registerer(vectorsOnly{c}),
		kprom.FetchAndProduceDetail(kprom.ByNode, kprom.Batches, kprom.Records, kprom.CompressedBytes), // topics have metrics of ours
		kprom.HistogramsFromOpts(kprom.HistogramOpts{Enable: kprom.RequestDurationE2E, Buckets: durations}),
		kprom.NativeBucketFactor(0), // off
	)
	c.Metrics.OnNewClient(nil) // the client is for the gauges alone
	return c
}

// vectorsOnly takes what kprom registers, but its gauges, which are about one client.
type vectorsOnly struct{ *clients }

// Register implements [prometheus.Registerer].
func (v vectorsOnly) Register(c prometheus.Collector) error {
	if _, single := c.(prometheus.Metric); !single {
		v.vectors = append(v.vectors, c)
	}
	return nil
}

// MustRegister implements [prometheus.Registerer].
func (v vectorsOnly) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		_ = v.Register(c)
	}
}

// Unregister implements [prometheus.Registerer].
func (vectorsOnly) Unregister(prometheus.Collector) bool { return false }

// OnNewClient implements [kgo.HookNewClient].
func (c *clients) OnNewClient(client *kgo.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[client] = struct{}{}
}

// OnClientClosed implements [kgo.HookClientClosed].
func (c *clients) OnClientClosed(client *kgo.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, client)
}

// Describe implements [prometheus.Collector].
func (c *clients) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range c.vectors {
		v.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{descProduceRecords, descProduceBytes, descFetchRecords, descFetchBytes} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *clients) Collect(ch chan<- prometheus.Metric) {
	for _, v := range c.vectors {
		v.Collect(ch)
	}
	c.mu.Lock()
	var produceRecords, produceBytes, fetchRecords, fetchBytes int64
	for client := range c.open {
		produceRecords += client.BufferedProduceRecords()
		produceBytes += client.BufferedProduceBytes()
		fetchRecords += client.BufferedFetchRecords()
		fetchBytes += client.BufferedFetchBytes()
	}
	c.mu.Unlock()
	gauge(ch, descProduceRecords, float64(produceRecords))
	gauge(ch, descProduceBytes, float64(produceBytes))
	gauge(ch, descFetchRecords, float64(fetchRecords))
	gauge(ch, descFetchBytes, float64(fetchBytes))
}

// Hooks are what a kafka.Cluster's clients tell their connections and requests by: set them in [kafka.Cluster].Hooks.
func (m *Metrics) Hooks() []kgo.Hook { return []kgo.Hook{m.clients} }
