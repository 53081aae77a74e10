package kubelet

import (
	"context"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

// TestDNS asks for what there is, for what there is not, and for what no cluster answers.
func TestDNS(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "ns", Name: "svc-1", Labels: map[string]string{discoveryv1.LabelServiceName: "svc"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.64.0.7"}}, {Addresses: []string{"10.64.0.8"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
		},
	}
	r := &resolver{k: &Kubelet{Options: Options{Client: fake.NewClientset(slice)}}}
	for _, tc := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want string
	}{
		{"svc.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.64.0.7"},
		{"SVC.ns.svc.Cluster.Local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.64.0.7"},
		{"svc.ns.svc.cluster.local.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, ""}, // answered, or resolvers wait
		{"other.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"svc.other.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"x.svc.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"example.com.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
	} {
		q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(tc.name), Type: tc.kind, Class: dnsmessage.ClassINET}}}
		query, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := r.answer(context.Background(), query)
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(raw); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, a := range m.Answers {
			got += netip.AddrFrom4(a.Body.(*dnsmessage.AResource).A).String()
		}
		if m.ID != 7 || m.RCode != tc.code || got != tc.want {
			t.Errorf("%s %s: %s %q, want %s %q", tc.name, tc.kind, m.RCode, got, tc.code, tc.want)
		}
	}
	if _, err := r.answer(context.Background(), []byte("no query")); err == nil {
		t.Error("garbage is answered")
	}
}
