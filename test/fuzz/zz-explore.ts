import { generate, Random } from "/work/main/test/fuzz/http1-generate.ts";
import { parseLlhttp, parseOurs, type Outcome } from "/work/main/test/fuzz/http1-parsers.ts";
const N = Number(process.argv[2] ?? 20000);
const random = new Random(Number(process.argv[3] ?? 1));
const groups = new Map<string, {n:number, ex:string[]}>();
const t0=performance.now();
let ok=0, okmsgs=0; const ends:any={};
function pieces(w:string,cuts:readonly number[]){const p:string[]=[];let a=0;for(const c of cuts){p.push(w.slice(a,c));a=c}p.push(w.slice(a));return p}
const PAD="\r\n\r\n\r\n0\r\n\r\n";
for (let i=0;i<N;i++){
  const c=generate(random);
  let ours=parseOurs(c.kind,pieces(c.wire,c.cuts)), theirs=parseLlhttp(c.kind,c.wire);
  let wire=c.wire;
  if (ours.end!==theirs.end && (ours.end==="incomplete"||theirs.end==="incomplete")){ wire=c.wire+PAD; ours=parseOurs(c.kind,[wire]); theirs=parseLlhttp(c.kind,wire);}
  ends[ours.end]=(ends[ours.end]??0)+1
  let key="";
  const n=Math.min(ours.messages.length,theirs.messages.length);
  for(let k=0;k<n&&!key;k++){const a=ours.messages[k]!,b=theirs.messages[k]!;
    for(const f of ["start","minor","complete","body","keepAlive"] as const) if(a[f]!==b[f]&&(f!=="body"||(a.complete&&b.complete))&&(f!=="keepAlive"||(a.complete&&b.complete))&&(f!=='complete'||(ours.end!=='error'&&theirs.end!=='error'))) {key=`msg.${f} ours=${JSON.stringify(a[f])} theirs=${JSON.stringify(b[f])} ${ours.end}/${theirs.end} ${ours.error}|${theirs.error}`;break}
    if(!key&&a.headers.join("\n")!==b.headers.join("\n")) key="msg.headers";
    if(!key&&a.complete&&b.complete&&a.trailers.join("\n")!==b.trailers.join("\n")) key="msg.trailers";
  }
  const ca=ours.messages.filter(m=>m.complete).length, cb=theirs.messages.filter(m=>m.complete).length;
  if(!key&&ours.end!==theirs.end) key=`end ${ours.end}:${ours.error} vs ${theirs.end}:${theirs.error}`;
  if(!key&&ca!==cb) key=`count ${ours.end}:${ours.error} vs ${theirs.end}:${theirs.error}`;
  if(!key){ok++;okmsgs+=ca;continue}
  key=c.kind+" "+key.replace(/(start ours=)"[^"]*" theirs="[^"]*"/,'$1').replace(/(body ours=)"[^"]*" theirs="[^"]*"/,'$1');
  const g=groups.get(key)??{n:0,ex:[]}; g.n++; if(g.ex.length<3)g.ex.push(wire); groups.set(key,g);
}
console.log(`${N} cases ${(performance.now()-t0).toFixed(0)} ms, equal ${ok} with ${okmsgs} messages`, ends);
for(const [k,g] of [...groups].sort((a,b)=>b[1].n-a[1].n).slice(0,Number(process.argv[4]??60))) {console.log(String(g.n).padStart(6),k); for(const e of g.ex.slice(0,Number(process.argv[5]??1))) console.log("         ",JSON.stringify(e).slice(0,300))}
