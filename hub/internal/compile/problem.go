package compile

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// problem is an RFC 9457 body that the edge writes itself.
type problem struct {
	slug, title string
	status      uint32
	detail      string
}

var (
	unknownType     = problem{"unknown-type", "Unknown type", 404, "The namespace has no resource of this type; the path is /namespace/type/name."}
	unknownName     = problem{"unknown-name", "Unknown name", 404, "The namespace has no resource of this type and name."}
	noReadyEndpoint = problem{"no-ready-endpoint", "No ready endpoint", 503, "The resource is declared, but has no ready endpoint in any cluster."}
)

func (p problem) direct() *routev3.Route_DirectResponse {
	text := structpb.NewStringValue
	return &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
		Status: p.status,
		BodyFormat: &corev3.SubstitutionFormatString{
			ContentType: "application/problem+json",
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: map[string]*structpb.Value{
				"type":      text("https://isthmus.dev/problems/" + p.slug),
				"title":     text(p.title),
				"status":    structpb.NewNumberValue(float64(p.status)),
				"detail":    text(p.detail),
				"requestId": text("%REQ(X-REQUEST-ID)%"),
			}}},
		},
	}}
}
