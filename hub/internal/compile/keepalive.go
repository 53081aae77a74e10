package compile

import (
	"errors"
	"fmt"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Keepalive is how routers find out that a connection to another router leads nowhere. After Interval since the last answer
// (and up to 15 % more, which Envoy adds) a ping is sent; when it is not answered within Timeout the connection is closed.
// It is also closed when TCP has sent something again and nothing was acknowledged for TCPTimeout since (TCP_USER_TIMEOUT).
type Keepalive struct{ Interval, Timeout, TCPTimeout time.Duration }

// DefaultKeepalive notices a black hole after about 1.4 s and a frozen router after 2.2 s, and cuts no stream on a link of
// 300 ms and 1 % loss that an upload fills (decision 0019).
func DefaultKeepalive() Keepalive {
	return Keepalive{Interval: 200 * time.Millisecond, Timeout: 2 * time.Second, TCPTimeout: time.Second}
}

// Bounds of each: shorter ones would be false alarms, longer ones no alarm.
const (
	minKeepalive = 100 * time.Millisecond
	maxKeepalive = time.Minute
)

// Validate says what is wrong, all of it.
func (k Keepalive) Validate() error {
	check := func(what string, d time.Duration) error {
		if d < minKeepalive || d > maxKeepalive {
			return fmt.Errorf("%s %s: must be from %s to %s", what, d, minKeepalive, maxKeepalive)
		}
		return nil
	}
	return errors.Join(check("interval", k.Interval), check("timeout", k.Timeout), check("TCP timeout", k.TCPTimeout))
}

// Parts of cluster.yaml.
const (
	httpOptions    = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	tcpUserTimeout = "TCP_USER_TIMEOUT"
)

// apply puts it into the cluster that all others are made of.
func (k Keepalive) apply(c *clusterv3.Cluster) error {
	if err := k.Validate(); err != nil {
		return fmt.Errorf("keepalive: %w", err)
	}
	o := &httpv3.HttpProtocolOptions{}
	if err := c.GetTypedExtensionProtocolOptions()[httpOptions].UnmarshalTo(o); err != nil {
		return fmt.Errorf("keepalive: %w", err)
	}
	ping := o.GetExplicitHttpConfig().GetHttp2ProtocolOptions().GetConnectionKeepalive()
	if ping == nil {
		return errors.New("keepalive: the cluster has none")
	}
	ping.Interval, ping.Timeout = durationpb.New(k.Interval), durationpb.New(k.Timeout)
	packed, err := pack(o)
	if err != nil {
		return fmt.Errorf("keepalive: %w", err)
	}
	c.TypedExtensionProtocolOptions[httpOptions] = packed
	socket := c.GetUpstreamBindConfig().GetSocketOptions()
	i := slices.IndexFunc(socket, func(o *corev3.SocketOption) bool { return o.GetDescription() == tcpUserTimeout })
	if i < 0 {
		return fmt.Errorf("keepalive: the cluster does not set %s", tcpUserTimeout)
	}
	socket[i].Value = &corev3.SocketOption_IntValue{IntValue: k.TCPTimeout.Milliseconds()}
	return nil
}
