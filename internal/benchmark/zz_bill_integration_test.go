//go:build integration

package main
import ("testing";"os";"os/exec";"etl/internal/fleet";"etl/internal/testserver";"time";"net/http";"strings";"io")
func TestIntegrationBill(t *testing.T){
 c:=testserver.Miniflare(t,testserver.Options{})
 env:=append(os.Environ(),"CLOUDFLARE_ACCOUNT_ID="+c.Account,"CLOUDFLARE_API_TOKEN="+c.Token,"CLOUDFLARE_API_BASE_URL="+c.URL)
 run:=func(a ...string){ cmd:=exec.Command("/tmp/g/etl",a...); cmd.Env=env; start:=time.Now(); out,err:=cmd.CombinedOutput(); t.Logf("%v %v %s\n%.3000s",time.Since(start),err,strings.Join(a," "),out)}
 run("migrate","--source","d1://"+c.DatabaseID)
 f,_:=fleet.New(fleet.Bench(4500,2))
 n,err:=f.WriteSQLite(t.Context(),c.SQLitePath,f.Days(),fleet.WriteOptions{Upsert:true})
 t.Log(n,err)
 q:=func(sql string){ r,_:=http.NewRequest("POST",c.URL+"/accounts/"+c.Account+"/d1/database/"+c.DatabaseID+"/raw",strings.NewReader(`{"sql":"`+sql+`"}`)); r.Header.Set("Authorization","Bearer "+c.Token); res,err:=http.DefaultClient.Do(r); if err!=nil{t.Fatal(err)}; b,_:=io.ReadAll(res.Body); t.Logf("%.300s",b)}
 q("SELECT count(*) FROM timeseries")
 store:="file:"+t.TempDir()+"/s"
 for i:=range 3 {
 now:=f.Days().To.Time().Add(2*time.Hour)
 if i==0 { now=now.Add(-24*time.Hour) }
 run("archive","--source","d1://"+c.DatabaseID,"--store",store,"--now",now.Format(time.RFC3339))
 }
}
