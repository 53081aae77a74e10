package router

import (
	"encoding/json"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// ProblemType is the prefix of a problem's type URI; the slug follows.
const ProblemType = "https://isthmus.dev/problems/"

// Problem is what an RFC 9457 body says, except for the request id, which Envoy fills in.
type Problem struct {
	Slug   string // of ProblemType; empty for "about:blank"
	Title  string
	Status uint32
	Detail string // may hold Envoy's %COMMANDS%
}

// The problems that a router writes itself.
var (
	unknownNamespace = Problem{"unknown-namespace", "Unknown namespace", 404, "No resource is exported from a namespace of this name; the path is /namespace/type/name."}
	unknownType      = Problem{"unknown-type", "Unknown type", 404, "The namespace has no resource of this type; the path is /namespace/type/name."}
	unknownName      = Problem{"unknown-name", "Unknown name", 404, "The namespace has no resource of this type and name."}
	noReadyEndpoint  = Problem{"no-ready-endpoint", "No ready endpoint", 503, "The resource is declared, but has no ready endpoint in any cluster that can be reached."}
	unreachable      = Problem{"unreachable", "Unreachable", 503, "The resource's endpoint could not be reached, or broke the connection before it answered."}
	overloaded       = Problem{"", "Service Unavailable", 503, "Too many requests to this resource are in flight."}
	forbidden        = Problem{"forbidden", "Forbidden", 403, "This router does not know the caller's identity; it may have been removed from the fleet."}
	badTarget        = Problem{"bad-target", "Bad x-isthmus-target", 400, "The header x-isthmus-target, of a copy x-isthmus-mirror, must be /namespace/type/name, each a DNS label."}
	notReady         = Problem{"not-ready", "Not ready", 503, "The router has not loaded its tables yet."}
)

func (p Problem) fields() map[string]any {
	uri := "about:blank"
	if p.Slug != "" {
		uri = ProblemType + p.Slug
	}
	return map[string]any{"type": uri, "title": p.Title, "status": p.Status, "detail": p.Detail, "requestId": "%REQ(X-REQUEST-ID)%"}
}

// format is the body as Envoy writes it.
func (p Problem) format() *corev3.SubstitutionFormatString {
	fields := p.fields()
	fields["status"] = float64(p.Status)
	s, err := structpb.NewStruct(fields)
	if err != nil { // the fields are strings and a number
		panic(err)
	}
	return &corev3.SubstitutionFormatString{
		Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: s},
		ContentType:     "application/problem+json",
		OmitEmptyValues: true, // a path that is refused before it has a request id
	}
}

// Direct is a route action that answers with the problem.
func (p Problem) Direct() *routev3.Route_DirectResponse {
	return &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: p.Status, BodyFormat: p.format()}}
}

// UnknownType is the answer of a namespace's table to a type that it does not have.
func UnknownType() Problem { return unknownType }

// UnknownName is the answer of a namespace's table to a name that its type does not have.
func UnknownName() Problem { return unknownName }

type object = map[string]any
type list = []any

func flags(f ...string) object { return object{"response_flag_filter": object{"flags": f}} }

func header(name string) object {
	return object{"header_filter": object{"header": object{"name": name, "present_match": true}}}
}

// retrySafe are requests that the edge lets be sent again after a reset.
func retrySafe() object {
	matches := func(name string, m object) object {
		return object{"header_filter": object{"header": object{"name": name, "string_match": m}}}
	}
	return object{"and_filter": object{"filters": list{
		matches(RetryOnHeader, object{"exact": "reset"}),
		matches(":method", object{"safe_regex": object{"regex": strings.Join(safeMethods, "|")}}),
	}}}
}

func status(code uint32) object {
	return object{"status_code_filter": object{"comparison": object{"op": "EQ", "value": object{"default_value": code, "runtime_key": "isthmus.replies.status"}}}}
}

func mapper(filter object, p Problem) object {
	return object{"filter": filter, "status_code": p.Status,
		"body_format_override": object{"json_format": p.fields(), "content_type": "application/problem+json", "omit_empty_values": true}}
}

// plainErrors give Envoy's own refusals a body of the same form. Codes that tables answer with are not among them: their
// direct responses are local replies too and bring a body of their own.
func plainErrors() list {
	var out list
	for _, e := range []struct {
		code  uint32
		title string
	}{{400, "Bad Request"}, {408, "Request Timeout"}, {413, "Content Too Large"}, {426, "Upgrade Required"}, {431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"}, {502, "Bad Gateway"}, {504, "Gateway Timeout"}, {507, "Insufficient Storage"}} {
		out = append(out, mapper(status(e.code), Problem{"", e.title, e.code, "%RESPONSE_CODE_DETAILS%"}))
	}
	return out
}

// broken are the flags of an upstream that could not be reached or broke off.
func broken() object { return flags("UF", "UC", "UR", "LR", "UPE") }

// edgeReplies are the answers of the listeners that clients reach. A route that is not found there means that no scope has
// the namespace: every table ends in a catch-all.
func edgeReplies() object {
	return object{"mappers": append(list{
		mapper(header("x-isthmus-bad-target"), badTarget),
		mapper(flags("NR"), unknownNamespace),
		mapper(flags("UH", "NC"), noReadyEndpoint),
		mapper(flags("UO"), overloaded),
		mapper(broken(), unreachable),
	}, plainErrors()...)}
}

// localReplies are the answers of the listeners that only routers reach. The miss header says that the request reached no
// pod here, so that another place may be tried; after a connection that broke (UC) nobody knows.
func localReplies() object {
	miss := func(m object) object {
		m["headers_to_add"] = list{object{"header": object{"key": MissHeader, "value": "%RESPONSE_FLAGS%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
		return m
	}
	return object{"mappers": append(list{
		miss(mapper(flags("NR"), unknownName)),
		miss(mapper(flags("UH", "NC"), noReadyEndpoint)),
		miss(mapper(flags("UF"), unreachable)),
		miss(mapper(flags("UO"), overloaded)),
		miss(mapper(object{"and_filter": object{"filters": list{flags("UC", "UR"), retrySafe()}}}, unreachable)),
		mapper(broken(), unreachable),
		mapper(status(403), forbidden),
	}, plainErrors()...)}
}

// inlineJSON writes a value for the template; JSON is YAML.
func inlineJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
