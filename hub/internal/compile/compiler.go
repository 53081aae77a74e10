package compile

import (
	_ "embed"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/internal/identity"

	// cluster.yaml names these by type URL: importing them makes them known to protojson.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

var (
	//go:embed cluster.yaml
	clusterYAML []byte
	//go:embed outlier.yaml
	outlierYAML []byte
)

// Compiler holds what all resources of a fleet share. It is safe for concurrent use and never changes.
type Compiler struct {
	fleet   string
	cluster *clusterv3.Cluster          // template
	outlier *clusterv3.OutlierDetection // of sets
	retries retries
}

// New returns a compiler for a fleet (its trust domain), or an error when the fleet's name is not one or the keepalive is out
// of bounds.
func New(fleet string, keepalive Keepalive) (*Compiler, error) {
	if err := identity.ValidateFleet(fleet); err != nil {
		return nil, err
	}
	c := &Compiler{fleet: fleet, cluster: &clusterv3.Cluster{}, outlier: &clusterv3.OutlierDetection{}}
	if err := fromYAML(clusterYAML, c.cluster); err != nil {
		return nil, fmt.Errorf("cluster.yaml: %w", err)
	}
	if err := keepalive.apply(c.cluster); err != nil {
		return nil, err
	}
	if err := fromYAML(outlierYAML, c.outlier); err != nil {
		return nil, fmt.Errorf("outlier.yaml: %w", err)
	}
	var err error
	c.retries, err = newRetries()
	return c, err
}

func fromYAML(b []byte, m proto.Message) error {
	j, err := yaml.YAMLToJSON(b)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(j, m)
}

type validated interface {
	proto.Message
	ValidateAll() error
}

// check refuses what Envoy would refuse.
func check(m validated) error {
	if err := m.ValidateAll(); err != nil {
		return err
	}
	if s, ok := m.(*routev3.ScopedRouteConfiguration); ok {
		return checkTable(s)
	}
	return nil
}

// pack validates an extension before it is hidden in an Any, where nothing looks at it again.
func pack(m validated) (*anypb.Any, error) {
	if err := m.ValidateAll(); err != nil {
		return nil, err
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: body}, nil
}
