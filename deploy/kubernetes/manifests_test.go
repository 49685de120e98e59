// Package kubernetes checks the manifests beside it against Kubernetes' own types.
// It is a module of its own, so that etl does not depend on them.
package kubernetes

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestManifests: every field is one that Kubernetes knows, and pods are what
// docs/running.md says of them.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	pods, services := 0, 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(data, []byte("\n---\n")) {
			var kind struct{ APIVersion, Kind string }
			if err := yaml.Unmarshal(doc, &kind); err != nil {
				t.Fatal(file, err)
			}
			strict := func(v any) {
				if err := yaml.UnmarshalStrict(doc, v); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
			switch kind.APIVersion + " " + kind.Kind {
			case "batch/v1 CronJob":
				var v batchv1.CronJob
				strict(&v)
				if v.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent || v.Spec.TimeZone == nil || *v.Spec.TimeZone != "Etc/UTC" || v.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
					t.Errorf("%s: %+v", file, v.Spec)
				}
				pod(t, file, v.Spec.JobTemplate.Spec.Template)
				pods++
			case "apps/v1 Deployment":
				var v appsv1.Deployment
				strict(&v)
				for k, want := range v.Spec.Selector.MatchLabels {
					if v.Spec.Template.Labels[k] != want {
						t.Errorf("%s: the selector does not match the pod's label %s", file, k)
					}
				}
				c := v.Spec.Template.Spec.Containers[0]
				if c.LivenessProbe.HTTPGet.Path != "/livez" || c.ReadinessProbe.HTTPGet.Path != "/healthz" || c.LivenessProbe.HTTPGet.Port.StrVal != c.Ports[0].Name {
					t.Errorf("%s: probes %+v %+v", file, c.LivenessProbe, c.ReadinessProbe)
				}
				pod(t, file, v.Spec.Template)
				pods++
			case "v1 Service":
				var v corev1.Service
				strict(&v)
				services++
			default:
				t.Errorf("%s: what is %+v?", file, kind)
			}
		}
	}
	if pods != 2 || services != 1 {
		t.Errorf("%d pods, %d services", pods, services)
	}
}

func pod(t *testing.T, file string, p corev1.PodTemplateSpec) {
	t.Helper()
	s := p.Spec
	if s.SecurityContext == nil || !*s.SecurityContext.RunAsNonRoot || *s.SecurityContext.RunAsUser != 65532 || *s.TerminationGracePeriodSeconds < 600 || *s.AutomountServiceAccountToken {
		t.Errorf("%s: %+v", file, s)
	}
	c := s.Containers[0]
	if len(s.Containers) != 1 || c.SecurityContext == nil || *c.SecurityContext.AllowPrivilegeEscalation || !*c.SecurityContext.ReadOnlyRootFilesystem || c.Resources.Limits.Memory().IsZero() || c.Args[0] != "schedule" {
		t.Errorf("%s: %+v", file, c)
	}
}
