package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
)

const (
	reachTimeout   = 5 * time.Second // for all addresses, which are asked at once
	examineTimeout = 5 * time.Second // for each look at the cluster; they go on side by side
	looksMost      = 500             // topics and groups that are looked at one by one
)

// checkup is everything that was seen of a cluster, a registry and this machine. What could not be seen has an error
// beside it; judging is a matter of data alone.
type checkup struct {
	now     time.Time
	cluster kafka.Cluster
	wantID  string // of the context, "" if it names none

	embedded bool // it is the millrace dev of this folder

	seeds   []reached
	brokers []reached // those the cluster names, at the address that it gives to clients

	meta     kadm.Metadata
	metaErr  error
	versions map[int32]brokerVersion
	verErr   error

	topicConfigs  map[string]map[string]string // effective values by topic
	topicErr      error
	brokerConfigs map[string]string // of any broker
	brokerErr     error
	newest        kadm.ListedOffsets // the records with the latest timestamps

	dirs    []kadm.DescribedLogDir
	dirsErr error

	groups    []groups.Group
	ages      map[groups.Key]time.Time
	groupsErr error

	clusterMay  []kadm.ACLOperation // what the login may do to the cluster, nothing without Describe
	clusterTold bool
	groupMay    map[string][]kadm.ACLOperation // and to groups

	registries []registryLook
	registryAt string // who named the registry, "" if nobody did
	fileLimit  uint64 // 0 where it is not known
}

// reached is how an address answered.
type reached struct {
	addr string
	id   int32 // -1 for a seed
	err  error
	took time.Duration
}

// brokerVersion is what a broker says it can do.
type brokerVersion struct {
	release     string
	transaction int16 // the finalized level of transaction.version, -1 if it is none
	heartbeats  bool  // it speaks the consumer protocol of KIP-848
	err         error
}

// checkUp looks at everything. It takes no longer than reachTimeout and examineTimeout together.
func (a *app) checkUp(ctx context.Context, c kafka.Cluster) *checkup {
	c.ReadOnly, c.Log = true, nil // a doctor changes nothing, and says itself what is wrong
	k := &checkup{now: a.now(), cluster: c, fileLimit: fileLimit(), registryAt: a.config.sources["registry"], embedded: a.config.dev.PID != 0}
	if here := a.config.context; here != nil {
		k.wantID = here.clusterID
	}
	var all sync.WaitGroup
	all.Go(func() { k.registries = a.lookAtRegistries(ctx) })
	k.reach(ctx)
	k.cluster.Seeds = nil
	for _, r := range k.seeds {
		if r.err == nil {
			k.cluster.Seeds = append(k.cluster.Seeds, r.addr)
		}
	}
	if len(k.cluster.Seeds) > 0 && k.metaErr == nil {
		for _, look := range []func(context.Context, *kadm.Client){k.lookAtVersions, k.lookAtTopics, k.lookAtBrokerConfigs, k.lookAtDisks, k.lookAtClocks} {
			all.Go(func() { k.with(ctx, look) })
		}
		all.Go(func() { k.lookAtGroups(ctx) })
		all.Go(func() { k.lookAtClusterRights(ctx) })
	}
	all.Wait()
	return k
}

// reach asks each address for itself: the seeds, and once one of them answers the brokers that it names.
func (k *checkup) reach(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	seeds := slices.Compact(slices.Sorted(slices.Values(k.cluster.Seeds)))
	answers := make(chan reached, len(seeds))
	for _, addr := range seeds {
		go func() { answers <- k.ping(ctx, addr, -1) }()
	}
	var named sync.WaitGroup
	asked := false
	for range seeds {
		r := <-answers
		k.seeds = append(k.seeds, r)
		if r.err == nil && !asked {
			asked = true
			named.Go(func() { k.reachNamed(ctx, r.addr, seeds) })
		}
	}
	named.Wait()
	slices.SortFunc(k.seeds, func(a, b reached) int { return strings.Compare(a.addr, b.addr) })
}

func (k *checkup) reachNamed(ctx context.Context, seed string, seeds []string) {
	one := k.cluster
	one.Seeds = []string{seed}
	client, err := one.Client()
	if err != nil {
		k.metaErr = err
		return
	}
	defer client.Close()
	if k.meta, err = kadm.NewClient(client).Metadata(kadm.WithAuthorizedOps(ctx)); err != nil {
		k.metaErr = k.cluster.Explain(err, "Describe", "cluster")
		return
	}
	brokers := make([]reached, len(k.meta.Brokers))
	var all sync.WaitGroup
	for i, b := range k.meta.Brokers {
		addr := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
		brokers[i] = reached{addr: addr, id: b.NodeID}
		if !slices.Contains(seeds, addr) { // a seed is asked already
			all.Go(func() { brokers[i] = k.ping(ctx, addr, b.NodeID) })
		}
	}
	all.Wait()
	k.brokers = brokers
}

func (k *checkup) ping(ctx context.Context, addr string, id int32) reached {
	one := k.cluster
	one.Seeds = []string{addr}
	began := time.Now()
	err := one.Ping(ctx)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = fmt.Errorf("%s: no answer within %s: is the address right, and is no firewall in between?", addr, reachTimeout)
	}
	return reached{addr, id, err, time.Since(began)}
}

// with gives look a client and a deadline of its own.
func (k *checkup) with(ctx context.Context, look func(context.Context, *kadm.Client)) {
	client, err := k.cluster.Client()
	if err != nil {
		return // the same cluster answered a moment ago
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	look(ctx, kadm.NewClient(client))
}

// consumerHeartbeat is the request that a broker of the new consumer protocol knows (KIP-848).
const consumerHeartbeat = 68

func (k *checkup) lookAtVersions(ctx context.Context, adm *kadm.Client) {
	all, err := adm.ApiVersions(ctx)
	if err != nil {
		k.verErr = err
		return
	}
	k.versions = map[int32]brokerVersion{}
	for id, v := range all {
		if v.Err != nil {
			k.versions[id] = brokerVersion{err: v.Err}
			continue
		}
		got := brokerVersion{release: v.VersionGuess(), transaction: -1}
		_, got.heartbeats = v.KeyMaxVersion(consumerHeartbeat)
		for _, f := range v.Raw().FinalizedFeatures {
			if f.Name == "transaction.version" {
				got.transaction = f.MaxVersionLevel
			}
		}
		k.versions[id] = got
	}
}

// own are the topics that are neither Kafka's nor a tool's, by name.
func (k *checkup) own() []string {
	var names []string
	for _, t := range k.meta.Topics.Sorted() {
		if !t.IsInternal && !strings.HasPrefix(t.Topic, "_") && t.Err == nil {
			names = append(names, t.Topic)
		}
	}
	return names
}

func (k *checkup) lookAtTopics(ctx context.Context, adm *kadm.Client) {
	k.topicConfigs = map[string]map[string]string{}
	for batch := range slices.Chunk(k.own(), looksMost) {
		configs, err := adm.DescribeTopicConfigs(ctx, batch...)
		if err != nil {
			k.topicErr = k.cluster.Explain(err, "DescribeConfigs", "topic "+batch[0])
			return
		}
		for _, r := range configs {
			if r.Err != nil {
				k.topicErr = k.cluster.Explain(r.Err, "DescribeConfigs", "topic "+r.Name)
				continue
			}
			k.topicConfigs[r.Name] = values(r)
		}
	}
}

func values(r kadm.ResourceConfig) map[string]string {
	m := make(map[string]string, len(r.Configs))
	for _, kv := range r.Configs {
		m[kv.Key] = kv.MaybeValue()
	}
	return m
}

func (k *checkup) lookAtBrokerConfigs(ctx context.Context, adm *kadm.Client) {
	for _, b := range k.meta.Brokers {
		configs, err := adm.DescribeBrokerConfigs(ctx, b.NodeID)
		if err == nil && len(configs) > 0 {
			err = configs[0].Err
		}
		if err != nil {
			k.brokerErr = k.cluster.Explain(err, "DescribeConfigs", "cluster")
			continue
		}
		if len(configs) > 0 {
			k.brokerConfigs, k.brokerErr = values(configs[0]), nil
			return
		}
	}
}

func (k *checkup) lookAtDisks(ctx context.Context, adm *kadm.Client) {
	all, err := adm.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		k.dirsErr = k.cluster.Explain(err, "Describe", "cluster")
	}
	for _, d := range all.Sorted() {
		if d.Err != nil {
			k.dirsErr = k.cluster.Explain(d.Err, "Describe", "cluster")
			continue
		}
		k.dirs = append(k.dirs, d)
	}
}

// lookAtClocks asks for the latest timestamp of some topics: one that lies ahead of us was stamped by a clock that does.
func (k *checkup) lookAtClocks(ctx context.Context, adm *kadm.Client) {
	names := k.own()
	if k.meta.Topics.Has("__consumer_offsets") {
		names = append([]string{"__consumer_offsets"}, names...) // its records are stamped by the brokers
	}
	if len(names) > 0 {
		k.newest, _ = adm.ListMaxTimestampOffsets(ctx, names[:min(len(names), looksMost)]...) // brokers before 3.0 do not know
	}
}

func (k *checkup) lookAtGroups(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	listed, err := groups.List(ctx, k.cluster)
	if err != nil {
		k.groupsErr = err
		return
	}
	var ids []string
	for _, g := range listed {
		if (g.Type == "" || strings.EqualFold(g.Type, "classic") || strings.EqualFold(g.Type, "consumer")) && len(ids) < looksMost {
			ids = append(ids, g.ID)
		}
	}
	k.groups, k.groupsErr = groups.Describe(ctx, k.cluster, ids...)
	if errors.Is(k.groupsErr, groups.ErrNotFound) { // one went between the two questions, or is empty
		k.groups, k.groupsErr = nil, nil
		for _, id := range ids {
			g, err := groups.Describe(ctx, k.cluster, id)
			if err != nil && !errors.Is(err, groups.ErrNotFound) {
				k.groupsErr = err
				break
			}
			k.groups = append(k.groups, g...)
		}
	}
	if k.groupsErr == nil {
		k.ages, _ = groups.Ages(ctx, k.cluster, k.groups, agesMost) // what is not known is not judged
	}
	k.with(ctx, k.lookAtGroupRights)
}

// registryLook is what a registry says of itself.
type registryLook struct {
	url         string
	mode, level string
	ahead       time.Duration // of its clock before ours; within a second it says nothing
	err         error
}

func (a *app) lookAtRegistries(ctx context.Context) []registryLook {
	urls := a.settings.RegistryURLs
	if len(urls) == 0 {
		urls = []string{defaultRegistry}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: examineTimeout}
	if a.settings.TLSCA != "" {
		pem, err := os.ReadFile(a.settings.TLSCA)
		pool := x509.NewCertPool()
		if err == nil && pool.AppendCertsFromPEM(pem) {
			transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
	}
	looks := make([]registryLook, len(urls))
	var all sync.WaitGroup
	for i, u := range urls {
		all.Go(func() { looks[i] = a.lookAtRegistry(ctx, client, strings.TrimRight(u, "/")) })
	}
	all.Wait()
	return looks
}

func (a *app) lookAtRegistry(ctx context.Context, client *http.Client, base string) registryLook {
	look := registryLook{url: redacted(base)}
	var config struct {
		Level string `json:"compatibilityLevel"`
	}
	var mode struct{ Mode string }
	if look.ahead, look.err = a.ask(ctx, client, base+"/config", &config); look.err != nil {
		return look
	}
	_, _ = a.ask(ctx, client, base+"/mode", &mode) // not every registry has modes
	look.level, look.mode = config.Level, mode.Mode
	return look
}

// ask reads one answer, and how far the other clock is ahead.
func (a *app) ask(ctx context.Context, client *http.Client, url string, into any) (ahead time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	if user := a.settings.RegistryUser; user != "" {
		password := a.settings.RegistryPassword.Reveal()
		if file := a.settings.RegistryPasswordFile; file != "" {
			src, err := os.ReadFile(file)
			if err != nil {
				return 0, err
			}
			password = strings.TrimRight(string(src), "\r\n")
		}
		req.SetBasicAuth(user, password)
	}
	began := a.now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, errors.Unwrap(err) // without the URL, which the line names
	}
	defer func() { _ = resp.Body.Close() }()
	ours := began.Add(a.now().Sub(began) / 2)
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		ahead = date.Add(time.Second / 2).Sub(ours) // the header is cut to the second
	}
	if resp.StatusCode != http.StatusOK {
		return ahead, fmt.Errorf("it answers %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(into); err != nil {
		return ahead, fmt.Errorf("it answers, and not like a schema registry: %w", err)
	}
	return ahead, nil
}
