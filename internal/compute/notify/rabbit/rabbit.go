// Package rabbit publishes notifications on RabbitMQ as oslo.messaging's messagingv2 driver does, so that every consumer of OpenStack's notifications can read
// them: the topic exchange of the control plane (nova), one queue for each topic and priority, named like its routing key (versioned_notifications.info) and made
// when it is not there, so that messages wait for a consumer that has yet to come.
//
// What it promises: Send counts a message as taken when the broker has confirmed it. Connections that are lost are made again, by the next host of the URL; one
// message may then come twice, with the same id.
package rabbit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"kilonova/internal/compute/notify"
	"kilonova/internal/fault"
)

// Config says where to publish.
type Config struct {
	// URL in the form of oslo.messaging: rabbit://USER:PASSWORD@HOST:PORT,USER:PASSWORD@HOST:PORT/VHOST, with ?ssl=1 over TLS.
	URL string
	// Exchange is oslo.messaging's control_exchange; "": nova.
	Exchange string
	// Durable makes exchange and queues survive a restart of the broker: oslo.messaging's amqp_durable_queues. It must be the same for all who declare them.
	Durable bool
	// Timeout bounds a connection attempt and the wait for the broker's confirmations; 0: 10 s.
	Timeout time.Duration
	// Name of this client, for the broker's list of connections.
	Name string
}

// Sink is a notify.Sink.
type Sink struct {
	cfg   Config
	hosts []string // URLs, one for each host

	mu       sync.Mutex
	conn     *amqp.Connection
	channel  *amqp.Channel
	declared map[string]bool
	next     int       // host to try
	after    time.Time // not to be tried before
	pause    time.Duration
}

var _ notify.Sink = (*Sink)(nil)

const (
	firstPause = 250 * time.Millisecond
	lastPause  = 5 * time.Second
)

// New reads the configuration. Nothing is connected before the first Send.
func New(cfg Config) (*Sink, error) {
	if cfg.Exchange == "" {
		cfg.Exchange = "nova"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	hosts, err := parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	return &Sink{cfg: cfg, hosts: hosts}, nil
}

// parse makes a URL of AMQP's own for each host of one of oslo.messaging. Its errors never hold the URL: there is a password in it.
func parse(text string) ([]string, error) {
	bad := func(why string) error {
		return fault.New(fault.Invalid, "[notifications] transport_url %s; it has the form rabbit://USER:PASSWORD@HOST:PORT/VHOST.", why)
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, bad("has no scheme")
	}
	secure := false
	switch scheme {
	case "rabbit", "kombu", "amqp":
	case "amqps":
		secure = true
	default:
		return nil, bad("has a scheme that is none of rabbit, kombu, amqp, amqps")
	}
	rest, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, bad("has options that cannot be read")
	}
	for k, v := range values {
		if k != "ssl" {
			return nil, bad("has an option other than ssl")
		}
		secure = secure || v[0] == "1" || strings.EqualFold(v[0], "true")
	}
	names, vhost, _ := strings.Cut(rest, "/")
	if vhost == "" {
		vhost = "%2F"
	}
	own := map[bool]string{false: "amqp", true: "amqps"}[secure]
	var out []string
	for _, name := range strings.Split(names, ",") {
		u, err := url.Parse(own + "://" + name + "/")
		if err != nil || u.Hostname() == "" {
			return nil, bad("has a host that cannot be read")
		}
		port := u.Port()
		if port == "" {
			port = map[bool]string{false: "5672", true: "5671"}[secure]
		}
		u.Host = net.JoinHostPort(u.Hostname(), port)
		if u.User == nil {
			u.User = url.UserPassword("guest", "guest")
		}
		out = append(out, strings.TrimSuffix(u.String(), "/")+"/"+strings.ReplaceAll(vhost, "/", "%2F"))
	}
	return out, nil
}

// Name implements notify.Sink.
func (s *Sink) Name() string { return "RabbitMQ" }

// Send implements notify.Sink.
func (s *Sink) Send(ctx context.Context, messages []notify.Message) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.connect(); err != nil {
		return 0, err
	}
	n, err := s.publish(ctx, messages)
	if err != nil {
		s.drop()
		return n, fmt.Errorf("publish: %w", err)
	}
	return n, nil
}

// connect makes a connection, unless there is one. Between failed attempts it waits, longer each time.
func (s *Sink) connect() error {
	if s.channel != nil && !s.channel.IsClosed() {
		return nil
	}
	s.drop()
	if time.Now().Before(s.after) {
		return fault.New(fault.Unavailable, "RabbitMQ did not answer a moment ago.")
	}
	at := s.hosts[s.next%len(s.hosts)]
	err := s.open(at)
	if err != nil {
		s.drop()
		s.next++
		s.pause = min(max(2*s.pause, firstPause), lastPause)
		s.after = time.Now().Add(s.pause)
		return fmt.Errorf("connect to %s: %w", hostOf(at), err)
	}
	s.pause = 0
	return nil
}

func hostOf(at string) string {
	u, err := url.Parse(at)
	if err != nil {
		return "the broker"
	}
	return u.Host
}

func (s *Sink) open(at string) error {
	var err error
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(s.cfg.Name)
	s.conn, err = amqp.DialConfig(at, amqp.Config{Heartbeat: 10 * time.Second, Locale: "en_US", Dial: amqp.DefaultDial(s.cfg.Timeout), Properties: properties,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}})
	if err != nil {
		return err
	}
	if s.channel, err = s.conn.Channel(); err != nil {
		return err
	}
	if err := s.channel.Confirm(false); err != nil {
		return err
	}
	s.declared = map[string]bool{}
	if err := s.channel.ExchangeDeclare(s.cfg.Exchange, "topic", s.cfg.Durable, false, false, false, nil); err != nil {
		return durability(err)
	}
	return nil
}

// durability explains the refusal of a declaration that differs from what is there.
func durability(err error) error {
	var e *amqp.Error
	if errors.As(err, &e) && e.Code == amqp.PreconditionFailed {
		return fault.Wrap(err, fault.Invalid, "The exchange or queue is there with another durability: set [notifications] amqp_durable_queues as its other users have it.")
	}
	return err
}

// declare makes the queue of a routing key, so that what nobody reads yet is kept.
func (s *Sink) declare(key string) error {
	if s.declared[key] {
		return nil
	}
	if _, err := s.channel.QueueDeclare(key, s.cfg.Durable, false, false, false, nil); err != nil {
		return durability(err)
	}
	if err := s.channel.QueueBind(key, key, s.cfg.Exchange, false, nil); err != nil {
		return err
	}
	s.declared[key] = true
	return nil
}

// publish sends all and then waits for the confirmations. It counts those confirmed before the first that is not.
func (s *Sink) publish(ctx context.Context, messages []notify.Message) (int, error) {
	var confirms []*amqp.DeferredConfirmation
	var failed error
	for _, m := range messages {
		if failed = s.declare(m.Routing); failed != nil {
			break
		}
		c, err := s.channel.PublishWithDeferredConfirmWithContext(ctx, s.cfg.Exchange, m.Routing, false, false, amqp.Publishing{ContentType: "application/json", ContentEncoding: "utf-8",
			DeliveryMode: amqp.Persistent, MessageId: m.ID, Type: m.Event, Body: m.Body})
		if err != nil {
			failed = err
			break
		}
		confirms = append(confirms, c)
	}
	for i, c := range confirms {
		ok, err := c.WaitContext(ctx)
		if err != nil {
			return i, err
		}
		if !ok {
			return i, errors.New("the broker did not take the message")
		}
	}
	return len(confirms), failed
}

// drop forgets the connection.
func (s *Sink) drop() {
	if s.conn != nil {
		_ = s.conn.Close() // it is broken, or is not needed any more
	}
	s.conn, s.channel, s.declared = nil, nil, nil
}

// Close ends the connection.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	return nil
}
