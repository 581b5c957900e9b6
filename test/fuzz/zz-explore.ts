import { generate, Random } from "./http1-generate.ts";
import { compare, nameOf } from "./http1-judge.ts";
const N = Number(process.argv[2] ?? 20000);
const random = new Random(Number(process.argv[3] ?? 1));
const named = new Map<string, number>(), unnamed = new Map<string, {n:number, ex:string[]}>();
const t0=performance.now(); let equal=0;
for (let i=0;i<N;i++){
  const d=compare(generate(random)); if(!d){equal++;continue}
  const name=nameOf(d); if(name){named.set(name,(named.get(name)??0)+1);continue}
  const key=`${d.kind} ${d.refusedBy} ${d.field} ours=${d.ours.end} ${d.ours.error} theirs=${d.theirs.end} ${d.theirs.error}`;
  const g=unnamed.get(key)??{n:0,ex:[]}; g.n++; if(g.ex.length<3)g.ex.push(JSON.stringify(d.wire).slice(0,400)+(d.field?"\n              "+JSON.stringify((d.ourMessage as any)?.[d.field])+" | "+JSON.stringify((d.theirMessage as any)?.[d.field]):"")); unnamed.set(key,g);
}
console.log(`${N} in ${(performance.now()-t0).toFixed(0)} ms, equal ${equal}`);
for(const [k,n] of named) console.log(String(n).padStart(6),k);
console.log("UNNAMED");
for(const [k,g] of [...unnamed].sort((a,b)=>b[1].n-a[1].n)) {console.log(String(g.n).padStart(6),k); for(const e of g.ex.slice(0,2)) console.log("         ",e)}
