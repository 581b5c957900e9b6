import { RequestHeaders, HeaderMap, FLAG, knownId, tokenByte } from "/work/main/sdk/index.ts";
import { parseRequestHead, parseFields } from "/work/main/filters/codec/http1/head.ts";
import * as proto from "/work/shared/design/prototype-ring2/head.mjs";
const memory = new Uint8Array(new SharedArrayBuffer(1 << 20));
const request = ["Host: www.example.com","Connection: keep-alive","Cache-Control: max-age=0","User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36","Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8","Referer: https://www.example.com/","Accept-Encoding: gzip, deflate, br","Accept-Language: en-GB,en;q=0.9","Cookie: session=0123456789abcdef0123456789abcdef","\r\n"].join("\r\n");
const b=Buffer.from(request); const AT=1<<19; memory.set(b,AT);
const valueByte = new Uint8Array(256).fill(1, 32); valueByte[9]=1; valueByte[127]=0;
function m(name:string,f:()=>void){let best=1e9;for(let r=0;r<12;r++){const s=process.hrtime.bigint();for(let k=0;k<100000;k++)f();best=Math.min(best,Number(process.hrtime.bigint()-s)/100000)}console.log(name,best.toFixed(0))}
const h=new RequestHeaders();
let words=new Int32Array(0), wordsOf:ArrayBufferLike|undefined;
function variant(nameMode:number,valueMode:number,x=''){
 let src=`return function(headers,at,end,maxHeaders,bareLf){
  const memory=headers.memory, base=headers.base; let q=at;
  ${valueMode===2?`const words=state.view(memory); const off=memory.byteOffset;`:""}
  for(;;){ const nameAt=q; let c=0, hash=0;
   ${nameMode===0?`while(q<end){c=memory[q];const lower=tokenByte[c];if(lower===0)break;if(lower!==c)memory[q]=lower;hash=(Math.imul(hash,31)+lower)|0;q++}`:
     nameMode===1?`while(q<end){c=memory[q];const lower=tokenByte[c];if(lower===0)break;if(lower!==c)memory[q]=lower;hash=((hash<<5)-hash+lower)|0;q++}`:
     `let lower=0;while(q<end&&(lower=tokenByte[c=memory[q]])!==0){memory[q]=lower;hash=((hash<<5)-hash+lower)|0;q++}`}
   if(q===end)return 0;
   if(c!==58||q===nameAt){ if(q!==nameAt)return -1; if(c===10&&bareLf)q++; else if(c!==13)return -1; else if(q+1===end)return 0; else if(memory[q+1]!==10)return -1; else q+=2; headers.blockEnd=q-base; return q;}
   const nameEnd=q++;
   while(q<end&&(memory[q]===32||memory[q]===9))q++;
   const valueAt=q;
   ${valueMode===0?`while(q<end&&valueByte[(c=memory[q])]===1)q++;`:valueMode===1?`while(q<end&&(((c=memory[q])>31&&c!==127)||c===9))q++;`:
   `for(;;){
      while(((q+off)&3)!==0&&q<end&&valueByte[(c=memory[q])]===1)q++;
      if(q===end||((q+off)&3)!==0)break;
      let w=0; let i=(q+off)>>2; const last=(end+off)>>2; const i0=i;
      while(i<last){ w=words[i]; const d=w^0x7f7f7f7f; if(((((w-0x20202020)&~w)|((d-0x01010101)&~d))&0x80808080)!==0)break; i++ }
      q=(i<<2)-off;
      let k=0; while(k<4&&q<end&&valueByte[(c=memory[q])]===1){q++;k++}
      if(k<4)break;
   }`}
   if(q===end)return 0;
   let valueEnd=q; let flags=valueAt===nameEnd+2&&memory[nameEnd+1]===32?0:FLAG.IRREGULAR;
   if(c===13){ if(q+1===end)return 0; if(memory[q+1]!==10)return -1; q+=2 } else if(c===10&&bareLf){flags=FLAG.IRREGULAR;q++} else return -2;
   while(valueEnd>valueAt&&(memory[valueEnd-1]===32||memory[valueEnd-1]===9)){valueEnd--;flags=FLAG.IRREGULAR}
   if(headers.count===maxHeaders)return -3;
   headers.addSpan(nameAt-base,nameEnd-base,valueAt-base,valueEnd-base,hash,flags|knownId(hash,memory,nameAt,nameEnd));
  }}`; if(x==="nk")src=src.replace("flags|knownId(hash,memory,nameAt,nameEnd)","flags");if(x==="na")src=src.replace(/headers.addSpan[^;]*;/,"headers.count^=hash;"); return new Function("FLAG","knownId","tokenByte","valueByte","state",src)(FLAG,knownId,tokenByte,valueByte,{view(mem:Uint8Array){ if(mem.buffer!==wordsOf){wordsOf=mem.buffer;words=new Int32Array(mem.buffer as any)} return words }});
}
m("current",()=>{h.reset();h.memory=memory;h.base=AT;if(parseFields(h,AT,AT+b.length,100,true)<1)throw 1});
for(const n of [0,1,2]) for(const v of [0,1,2]){const f=variant(n,v);m(`name ${n} value ${v}`,()=>{h.reset();h.memory=memory;h.base=AT;if(f(h,AT,AT+b.length,100,true)<1)throw 1})}
const nk=variant(2,2,"nk");m("no knownId",()=>{h.reset();h.memory=memory;h.base=AT;nk(h,AT,AT+b.length,100,true)});const na=variant(2,2,"na");m("no addSpan",()=>{h.reset();h.memory=memory;h.base=AT;na(h,AT,AT+b.length,100,true)});
m("reset only",()=>{h.reset();h.memory=memory;h.base=AT;});
