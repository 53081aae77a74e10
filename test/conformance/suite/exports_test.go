package suite

import (
	"context"
	"fmt"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/mcs-api/config/crd"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/test/conformance/plan"
)

// defineExports installs the definition of ServiceExports, and waits until it can be used.
func defineExports(t *testing.T, c client.Client) {
	t.Helper()
	var def apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(crd.ServiceExportCRD, &def); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &def); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(plan.ImportGroup + "/v1alpha1")
	list.SetKind("ServiceExportList")
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = c.List(ctx, list)
		return last == nil, nil
	})
	if err != nil {
		t.Fatal(fmt.Errorf("ServiceExports cannot be listed: %w", last))
	}
}
