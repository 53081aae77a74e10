package cel

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/test/kubetest"
)

const testNamespace = "isthmus-spoke-eu"

// api is the API server under test; TestMain sets it once.
var api struct {
	config *rest.Config
	client client.Client
}

func TestMain(m *testing.M) {
	os.Exit(kubetest.RunWithClient(m, &api.config, &api.client, kubetest.HubCRDs()))
}

// makeNamespace makes the namespace of the namespaced kinds, once for all tests.
func makeNamespace(t *testing.T) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: testNamespace}}
	if err := api.client.Create(t.Context(), ns); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
}
