package compile

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

// TestKeepalive: what the hub is told reaches every cluster, and nothing else of it changes.
func TestKeepalive(t *testing.T) {
	c, err := New("fleet", Keepalive{Interval: 2 * time.Second, Timeout: 5 * time.Second, TCPTimeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Cluster(Set{Places: []string{"eu", "us"}})
	if err != nil {
		t.Fatal(err)
	}
	cluster, options := &clusterv3.Cluster{}, &httpv3.HttpProtocolOptions{}
	if err := r.Body.UnmarshalTo(cluster); err != nil {
		t.Fatal(err)
	}
	if err := cluster.GetTypedExtensionProtocolOptions()[httpOptions].UnmarshalTo(options); err != nil {
		t.Fatal(err)
	}
	h2 := options.GetExplicitHttpConfig().GetHttp2ProtocolOptions()
	ping := h2.GetConnectionKeepalive()
	if ping.GetInterval().AsDuration() != 2*time.Second || ping.GetTimeout().AsDuration() != 5*time.Second || !h2.GetAllowConnect() {
		t.Errorf("%v", h2)
	}
	if o := cluster.GetUpstreamBindConfig().GetSocketOptions(); len(o) != 2 || o[1].GetIntValue() != 3000 || o[0].GetIntValue() != 65536 {
		t.Errorf("%v", o)
	}
}

func TestKeepaliveBounds(t *testing.T) {
	for _, k := range []Keepalive{{}, {time.Millisecond, time.Second, time.Second}, {time.Second, time.Hour, time.Second}, {-time.Second, time.Second, time.Second}, {time.Second, time.Second, 0}} {
		if _, err := New("fleet", k); err == nil || !strings.Contains(err.Error(), "must be from 100ms to 1m0s") {
			t.Errorf("%v: error %v", k, err)
		}
	}
}
